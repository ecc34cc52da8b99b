/** Which processor is asked what, with hypervisors that only keep books. */
import { describe, expect, it } from 'vitest';
import { Frames } from '../machine/frames.ts';
import { MAILBOX_FRAMES, MailboxReceiver } from '../machine/mailbox.ts';
import { Memory, PAGE_SIZE } from '../machine/memory.ts';
import type { PcpuMessage } from '../machine/pcpu.ts';
import { Common } from '../xen/common.ts';
import type { SavedDomain } from '../xen/domain-save.ts';
import { Pcpus } from './pcpus.ts';

interface Fake {
  readonly number: number;
  /** What was asked of it: methods, and signals as "domid:port". */
  readonly log: string[];
  readonly domains: Set<number>;
}

interface World {
  readonly pcpus: Pcpus;
  readonly fakes: readonly Fake[];
  readonly common: Common;
  readonly told: string[];
  /** Domains that do not leave, and processors that take nobody. */
  readonly stuck: Set<number>;
  readonly full: Set<number>;
  /** What they say of their queues. */
  readonly queues: { of: (pcpu: number) => { virtualTime: number; runnable: unknown[] } };
  /** Lets the processors answer all that was asked of them. */
  settle(): Promise<void>;
}

function world(count: number): World {
  const memory = Memory.create(4 << 20);
  const frames = new Frames(memory);
  const common = new Common(frames);
  const seats = Array.from({ length: count }, (_, number) => ({
    number,
    mailbox: frames.allocContiguous(MAILBOX_FRAMES) * PAGE_SIZE,
    common: common.address,
    alone: count === 1,
  }));
  const told: string[] = [];
  const stuck = new Set<number>();
  const full = new Set<number>();
  const pcpus = new Pcpus(memory, common, seats, {
    onNotification: ({ kind }) => told.push(kind),
    onDeath: (error) => told.push(`dead: ${error.message}`),
    onLeaving: async (domid) => {
      told.push(`leaving ${domid}`);
      if (stuck.has(domid)) throw new Error('it stays');
    },
    onSettled: async (domid) => {
      told.push(`settled ${domid}`);
    },
  });
  const fakes = seats.map(({ number }): Fake => ({ number, log: [], domains: new Set() }));
  const queues: World['queues'] = { of: () => ({ virtualTime: 0, runnable: [] }) };
  const serve = (fake: Fake, method: string, args: readonly unknown[]): unknown => {
    fake.log.push(method);
    switch (method) {
      case 'createDomain': {
        const domid = common.claim(fake.number);
        fake.domains.add(domid);
        return domid;
      }
      case 'beginRestore': {
        const domid = common.claim(fake.number);
        fake.domains.add(domid);
        return { domid, places: [] };
      }
      case 'destroyDomain':
        common.release(args[0] as number);
        fake.domains.delete(args[0] as number);
        return null;
      case 'depart':
        fake.domains.delete(args[0] as number);
        return args[0];
      case 'arrive':
        if (full.has(fake.number)) throw new Error('no memory');
        common.move(args[0] as number, fake.number);
        fake.domains.add(args[0] as number);
        return null;
      case 'listDomains':
        return [...fake.domains].map((domid) => ({ domid }));
      case 'queue':
        return queues.of(fake.number);
      default:
        return fake.number;
    }
  };
  const receivers = seats.map(
    ({ mailbox, number }) =>
      new MailboxReceiver(memory, mailbox, () => pcpus.receive(number, { kind: 'room' })),
  );
  const settle = async () => {
    for (let idle = 0; idle < 20; idle++) {
      for (const [number, receiver] of receivers.entries()) {
        const fake = fakes[number]!;
        for (let mail = receiver.receive(); mail !== null; mail = receiver.receive()) {
          idle = 0;
          if (mail.kind === 'signal') {
            fake.log.push(`${mail.a}:${mail.b}`);
            continue;
          }
          const [id, method, args] = JSON.parse(mail.text) as [number, string, unknown[]];
          let answer: PcpuMessage;
          try {
            answer = { kind: 'reply', id, value: serve(fake, method, args) };
          } catch (error) {
            answer = { kind: 'failure', id, failure: { name: 'Error', message: (error as Error).message } };
          }
          pcpus.receive(number, answer);
        }
      }
      await Promise.resolve();
    }
  };
  return { pcpus, fakes, common, told, stuck, full, settle, queues };
}

const OPTIONS = { maxPages: 1, vcpus: 1 };

async function created(world: World, options: object = {}): Promise<number> {
  const domid = world.pcpus.control.createDomain({ ...OPTIONS, ...options });
  await world.settle();
  return domid;
}

describe('processors', () => {
  it('get new domains in turn, where these may be', async () => {
    const w = world(3);
    const domids = [await created(w), await created(w), await created(w), await created(w)];
    expect(domids.map((domid) => w.pcpus.pcpuOf(domid))).toEqual([0, 1, 2, 0]);
    const pinned = await created(w, { affinity: [[0, 2], [2]] });
    expect(w.pcpus.pcpuOf(pinned)).toBe(2);
    expect(w.pcpus.affinity(pinned)).toEqual([[0, 2], [2]]);
    const list = w.pcpus.control.listDomains();
    await w.settle();
    expect((await list).map(({ domid }) => domid)).toEqual([...domids, pinned]);
  });

  it('get domains that are restored in turn, too', async () => {
    const w = world(3);
    await created(w);
    const restored = async (affinity?: readonly (readonly number[] | null)[]) => {
      const made = w.pcpus.control.beginRestore({} as SavedDomain, 'a-uuid', affinity);
      await w.settle();
      return (await made).domid;
    };
    const domids = [await restored(), await restored(), await restored()];
    expect(domids.map((domid) => w.pcpus.pcpuOf(domid))).toEqual([1, 2, 0]);
    const pinned = await restored([[2]]);
    expect(w.pcpus.pcpuOf(pinned)).toBe(2);
    expect(w.pcpus.affinity(pinned)).toEqual([[2]]);
    expect(w.pcpus.affinity(domids[0]!)).toEqual([]);
  });

  it('are asked for what is theirs', async () => {
    const w = world(2);
    const [a, b] = [await created(w), await created(w)];
    const answers = [a, b].map((domid) => w.pcpus.control.crashDump(domid));
    w.pcpus.sendEvent(b, 7);
    await w.settle();
    expect(await Promise.all(answers)).toEqual([0, 1]);
    expect(w.fakes[1]!.log).toContain(`${b}:7`);
    expect(w.fakes[0]!.log).not.toContain(`${b}:7`);
  });

  it('hand a domain over; what is asked and signalled meanwhile comes after', async () => {
    const w = world(2);
    const domid = await created(w);
    const pinned = w.pcpus.pin(domid, [[1]]);
    // Up to where the domain is on its way: the request to leave is out.
    for (let turn = 0; turn < 10; turn++) await Promise.resolve();
    w.pcpus.sendEvent(domid, 3);
    w.pcpus.sendEvent(domid, 3);
    const answer = w.pcpus.control.crashDump(domid);
    await w.settle();
    await pinned;
    await w.settle();
    expect(await answer).toBe(1);
    expect(w.fakes[0]!.log).toEqual(['createDomain', 'depart']);
    expect(w.fakes[1]!.log).toEqual(['arrive', `${domid}:3`, 'crashDump']);
    expect(w.told).toEqual([`leaving ${domid}`, `settled ${domid}`]);
    expect(w.pcpus.pcpuOf(domid)).toBe(1);
  });

  it('keep a domain that cannot go', async () => {
    const w = world(2);
    const domid = await created(w);
    const tryPin = async () => {
      const result = w.pcpus.pin(domid, [[1]]).then(
        () => 'moved',
        (error: Error) => error.message,
      );
      await w.settle();
      return result;
    };
    w.stuck.add(domid);
    expect(await tryPin()).toBe('it stays');
    w.stuck.clear();
    w.full.add(1);
    expect(await tryPin()).toBe('no memory');
    expect(w.fakes[0]!.domains.has(domid)).toBe(true);
    expect(w.told.filter((each) => each === `settled ${domid}`)).toHaveLength(2);
    expect(w.pcpus.affinity(domid)).toEqual([]);
    w.full.clear();
    const release = await w.pcpus.hold(domid);
    expect(await tryPin()).toContain('copied');
    release();
    release();
    expect(await tryPin()).toBe('moved');
  });

  it('that are crowded give domains to those that have time', async () => {
    const w = world(2);
    const a = await created(w, { affinity: [[0]] });
    const b = await created(w, { affinity: [[0, 1]] });
    const c = await created(w, { affinity: [[1]] });
    expect([a, b, c].map((domid) => w.pcpus.pcpuOf(domid))).toEqual([0, 1, 1]);
    const entry = (domid: number, running: boolean) => ({ domid, actual: 0, mcuAdvance: 10, running });
    w.queues.of = (pcpu) => ({
      virtualTime: 0,
      runnable: pcpu === 1 ? [entry(b, false), entry(c, true)] : [],
    });
    w.pcpus.receive(1, { kind: 'notify', value: { kind: 'crowded' } });
    await w.settle();
    expect(w.pcpus.pcpuOf(b)).toBe(0);
    expect(w.told).toEqual([`leaving ${b}`, `settled ${b}`]);
  });

  it('bring domains together that want to share something', async () => {
    const w = world(2);
    const a = await created(w, { affinity: [[0]] });
    const b = await created(w);
    const c = await created(w, { affinity: [[1]] });
    expect([a, b, c].map((domid) => w.pcpus.pcpuOf(domid))).toEqual([0, 1, 1]);
    // a may not go to b; b may come.
    w.pcpus.receive(0, { kind: 'notify', value: { kind: 'seek', domid: a, other: b } });
    await w.settle();
    expect(w.pcpus.pcpuOf(b)).toBe(0);
    expect(w.fakes[0]!.log.at(-1)).toBe('sought');
    // c can neither go nor be visited; nor does one that is gone come. The guest is told all the same.
    const before = w.fakes[1]!.log.length;
    w.pcpus.receive(1, { kind: 'notify', value: { kind: 'seek', domid: c, other: a } });
    await w.settle();
    expect(w.fakes[1]!.log.slice(before)).toEqual(['sought']);
    expect([a, c].map((domid) => w.pcpus.pcpuOf(domid))).toEqual([0, 1]);
  });

  it('are gone together', async () => {
    const w = world(2);
    const answer = w.pcpus.control.allowanceGet().catch((error: Error) => error.message);
    w.pcpus.receive(1, { kind: 'panic', message: 'TypeError: broken', stack: '' });
    expect(await answer).toBe('TypeError: broken');
    expect(w.told).toContain('dead: TypeError: broken');
  });
});
