/**
 * The way to a processor and back, over a real thread: a fake hypervisor that spins or sleeps. Node runs no
 * TypeScript in a worker, so what the worker imports is compiled for this test.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Frames } from '../src/machine/frames.ts';
import { MAILBOX_FRAMES, MailboxSender } from '../src/machine/mailbox.ts';
import { Memory, PAGE_SIZE } from '../src/machine/memory.ts';
import { PcpuClient, remote } from '../src/machine/pcpu.ts';
import type { PcpuThreads } from '../src/toolstack/machine.ts';
import { nodePcpus } from '../src/toolstack/node/pcpu.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));

/** The fake: `spin` decides if it has work; signals are counted and echoed. */
const WORKER = `
import { parentPort, workerData } from 'node:worker_threads';
import { Memory } from './machine/memory.js';
import { MailboxReceiver } from './machine/mailbox.js';
import { dispatch, runPcpu } from './machine/pcpu.js';
class Fake {
  spinning = false;
  slices = 0;
  spin(on) { this.spinning = on; }
  count() { return this.slices; }
  echo(value) { return value; }
  die() { process.nextTick(() => {}); this.dying = true; }
  crash() { throw Object.assign(new Error('no'), { errno: 22 }); }
}
const fake = new Fake();
const post = (message) => parentPort.postMessage(message);
runPcpu(
  new MailboxReceiver(new Memory(workerData.memory), workerData.seat.mailbox, () => post({ kind: 'room' })),
  {
    runSlice() {
      fake.slices++;
      if (fake.dying) throw new TypeError('a bug of ours');
      if (!fake.spinning) return Infinity;
      const end = performance.now() + 1;
      while (performance.now() < end);
      return 0;
    },
    call: (method, args) => dispatch(fake, method, args),
    signal: (a, b) => post({ kind: 'notify', value: [a, b] }),
  },
  post,
  () => performance.now(),
);
`;

interface Fake {
  spin(on: boolean): void;
  count(): number;
  echo(value: unknown): unknown;
  die(): void;
  crash(): void;
}

const folder = mkdtempSync(join(tmpdir(), 'xenolith-pcpu-'));
const threads: PcpuThreads[] = [];

beforeAll(() => {
  const options =
    '--ignoreConfig --target es2023 --module nodenext --rewriteRelativeImportExtensions --skipLibCheck';
  const files = [
    'src/webassembly.d.ts',
    'src/machine/pcpu.ts',
    'src/machine/mailbox.ts',
    'src/machine/memory.ts',
  ];
  execFileSync(
    join(ROOT, 'node_modules/.bin/tsc'),
    [...options.split(' '), '--types', 'node', '--rootDir', 'src', '--outDir', folder, ...files],
    { cwd: ROOT, stdio: 'inherit' },
  );
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
  writeFileSync(join(folder, 'worker.js'), WORKER);
});

afterEach(async () => {
  for (const thread of threads.splice(0)) await thread.terminate();
});

afterAll(() => rmSync(folder, { recursive: true }));

function start(script = 'worker.js') {
  const memory = Memory.create(1 << 20);
  const mailbox = new Frames(memory).allocContiguous(MAILBOX_FRAMES) * PAGE_SIZE;
  const notified: unknown[] = [];
  const panics: Error[] = [];
  const client = new PcpuClient(
    new MailboxSender(memory, mailbox),
    (value) => notified.push(value),
    (error) => panics.push(error),
  );
  const url = pathToFileURL(join(folder, script));
  const thread = nodePcpus({ script: url, compilerScript: null })(
    { memory, seats: [{ number: 0, mailbox, common: 0, alone: true }] },
    (_pcpu, message) => client.receive(message),
    (error) => client.fail(error),
  );
  threads.push(thread);
  return { client, thread, fake: remote<Fake>(client), notified, panics };
}

describe('a processor on a thread', () => {
  it('answers while it sleeps and while it is busy', async () => {
    const { client, fake } = start();
    await client.ready;
    expect(await fake.echo({ a: [1, 'zwei', null] })).toEqual({ a: [1, 'zwei', null] });
    await fake.spin(true);
    const before = await fake.count();
    expect(await fake.echo('busy')).toBe('busy');
    await new Promise((resolve) => setTimeout(resolve, 30));
    expect(await fake.count()).toBeGreaterThan(before + 5);
    await expect(fake.crash()).rejects.toMatchObject({ message: 'no', errno: 22 });
  });

  it('runs no slices while it has nothing to do', async () => {
    const { fake } = start();
    const before = await fake.count();
    await new Promise((resolve) => setTimeout(resolve, 100));
    // The count itself wakes it: one slice a request.
    expect(await fake.count()).toBeLessThanOrEqual(before + 2);
  });

  it('takes requests larger than the mailbox, many at once, and signals in order', async () => {
    const { client, fake, notified } = start();
    const large = 'ö'.repeat(500_000);
    const replies = Promise.all([large, ...Array(200).keys()].map((value) => fake.echo(value)));
    for (let n = 0; n < 20_000; n++) client.signal(n, 1);
    expect(await replies).toEqual([large, ...Array(200).keys()]);
    await fake.echo('behind the signals');
    expect(notified).toEqual([...Array(20_000).keys()].map((n) => [n, 1]));
  });

  it('reports its death, once, and fails every call', async () => {
    const { client, fake, panics } = start();
    await fake.die();
    // It dies after it has answered; a call that comes in between may still be served.
    while (panics.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    await expect(fake.echo(1)).rejects.toThrow('TypeError: a bug of ours');
    await expect(fake.echo(2)).rejects.toThrow('TypeError: a bug of ours');
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(panics.map((error) => error.message)).toEqual(['TypeError: a bug of ours']);
    await client.ready;
  });

  it('reports a program that does not start', async () => {
    const { client } = start('nowhere.js');
    await expect(client.ready).rejects.toThrow('nowhere.js');
  });

  it('ends when it is told to, and when it is terminated in the middle of its work', async () => {
    const stopped = start();
    await stopped.client.ready;
    stopped.client.stop();
    await stopped.thread.terminate();
    const busy = start();
    await busy.fake.spin(true);
    await busy.thread.terminate();
    expect([...stopped.panics, ...busy.panics]).toEqual([]);
  });
});
