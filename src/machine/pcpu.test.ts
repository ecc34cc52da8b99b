import { describe, expect, it } from 'vitest';
import { Frames } from './frames.ts';
import { MAILBOX_FRAMES, MailboxReceiver, MailboxSender } from './mailbox.ts';
import { Memory, PAGE_SIZE } from './memory.ts';
import { dispatch, PcpuClient, type PcpuMessage, type PcpuWork, remote, runPcpu } from './pcpu.ts';

interface Calculator {
  readonly name: string;
  add(a: number, b: number): number;
  fail(): void;
}

class Real implements Calculator {
  readonly name = 'real';

  add(a: number, b: number): number {
    return a + b;
  }

  fail(): void {
    throw Object.assign(new RangeError('out of range'), { errno: 34 });
  }
}

/** A processor on the same thread: runs when told to, until its mailbox is empty. */
function machine(runSlice: () => number = () => 0) {
  const memory = Memory.create(1 << 20);
  const address = new Frames(memory).allocContiguous(MAILBOX_FRAMES) * PAGE_SIZE;
  const notified: unknown[] = [];
  const panics: string[] = [];
  const signals: number[][] = [];
  const client = new PcpuClient(
    new MailboxSender(memory, address),
    (value) => notified.push(value),
    (error) => panics.push(error.message),
  );
  const posted: PcpuMessage[] = [];
  const work: PcpuWork = {
    runSlice,
    signal: (a, b) => signals.push([a, b]),
    call(method, args) {
      return dispatch(new Real(), method, args);
    },
  };
  const run = () => {
    const receiver = new MailboxReceiver(memory, address, () => client.receive({ kind: 'room' }));
    runPcpu(
      receiver,
      work,
      (message) => posted.push(message),
      () => Date.now(),
    );
    for (const message of posted.splice(0)) client.receive(message);
  };
  return { client, run, notified, panics, signals };
}

describe('pcpu', () => {
  it('answers requests by name and takes signals', async () => {
    const { client, run, signals } = machine();
    const calculator = remote<Calculator>(client);
    const sum = calculator.add(2, 3);
    const failure = calculator.fail();
    client.signal(4, 5);
    // The stop ends the loop, so it waits in the mailbox behind what was sent before.
    const stopped = client.call('', []);
    stopped.catch(() => {});
    run();
    await client.ready;
    expect(await sum).toBe(5);
    await expect(failure).rejects.toMatchObject({ name: 'RangeError', message: 'out of range', errno: 34 });
    expect(signals).toEqual([[4, 5]]);
  });

  it('is no promise itself', async () => {
    const { client } = machine();
    const calculator = remote<Calculator>(client);
    expect(await calculator).toBe(calculator);
  });

  it.each(['constructor', 'toString', 'name', '__proto__', 'subtract'])('does not call %s', (method) => {
    expect(() => dispatch(new Real(), method, [])).toThrow('no such request');
  });

  it('reports what its work throws, and fails every call from then on', async () => {
    const { client, run, panics } = machine(() => {
      throw new TypeError('broken');
    });
    const waiting = client.call('never', []);
    run();
    await expect(waiting).rejects.toThrow();
    expect(panics).toEqual(['TypeError: broken']);
    await expect(client.call('add', [1, 2])).rejects.toThrow('TypeError: broken');
  });

  it('fails what waits when it is stopped', async () => {
    const { client } = machine();
    const waiting = client.call('add', [1, 2]);
    client.stop();
    await expect(waiting).rejects.toThrow('switched off');
    await expect(client.ready).rejects.toThrow('switched off');
  });
});
