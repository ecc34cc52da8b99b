/**
 * Frames and the counts of their owners, from two threads at once. Node runs no TypeScript in a worker, so what the
 * worker imports is compiled for this test.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Frames } from '../src/machine/frames.ts';
import { Memory, PAGE_SIZE } from '../src/machine/memory.ts';
import { Common } from '../src/xen/common.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const THREADS = 2;
const ROUNDS = 15_000;
const SHARED = 64;

/**
 * Takes and gives back frames, each marked as its own while it has it; holds and drops frames that all own (each was
 * given to every thread once); claims domain numbers. It tells what it found wrong, and which numbers it has.
 */
const WORKER = `
import { parentPort, workerData } from 'node:worker_threads';
import { Frames, OutOfFrames } from './machine/frames.js';
import { Memory } from './machine/memory.js';
import { Common } from './xen/common.js';
const { wasm, common: address, me, rounds, shared, start } = workerData;
const memory = new Memory(wasm);
const frames = new Frames(memory);
const common = new Common(frames, address);
const wrong = [];
const note = (text) => wrong.length < 5 && wrong.push(text);
let state = me * 7919 + 1;
const random = (below) => {
  state = (Math.imul(state, 1103515245) + 12345) >>> 0;
  return (state >>> 8) % below;
};
const runs = [];
const domids = [];
let last = 0;
Atomics.add(memory.i32, start, 1);
while (Atomics.load(memory.i32, start) < workerData.threads);
for (let round = 0; round < rounds; round++) {
  if (runs.length < 40 && random(2) === 0) {
    const count = random(4) === 0 ? 1 + random(8) : 1;
    let first;
    try {
      first = frames.allocContiguous(count);
    } catch (error) {
      if (!(error instanceof OutOfFrames)) note(String(error));
      continue;
    }
    for (let frame = first; frame < first + count; frame++) {
      if (memory.u32[frame * 1024] !== 0 || memory.u32[frame * 1024 + 1023] !== 0) note('not clear: ' + frame);
      memory.u32[frame * 1024] = me;
      memory.u32[frame * 1024 + 1023] = me;
    }
    runs.push([first, count]);
  } else if (runs.length > 0) {
    const [[first, count]] = runs.splice(random(runs.length), 1);
    for (let frame = first; frame < first + count; frame++)
      if (memory.u32[frame * 1024] !== me || memory.u32[frame * 1024 + 1023] !== me) note('not mine: ' + frame);
    frames.release(first, count);
  }
  const frame = shared + random(${SHARED});
  common.sharedFrames.add(frame);
  if (!common.sharedFrames.isShared(frame)) note('not shared: ' + frame);
  if (!common.sharedFrames.drop(frame)) note('the only owner: ' + frame);
  if (round % 100 === 0) domids.push(common.claim(me));
  if (round % 300 === 0) common.release(domids.pop());
}
for (const [first, count] of runs) frames.release(first, count);
for (let frame = shared; frame < shared + ${SHARED}; frame++) if (!common.sharedFrames.drop(frame)) last++;
parentPort.postMessage({ wrong, domids, last });
`;

interface Report {
  readonly wrong: readonly string[];
  readonly domids: readonly number[];
  /** How many of the frames that all own it dropped last. */
  readonly last: number;
}

const folder = mkdtempSync(join(tmpdir(), 'xenolith-frames-'));

beforeAll(() => {
  const options =
    '--ignoreConfig --target es2023 --module nodenext --rewriteRelativeImportExtensions --skipLibCheck';
  execFileSync(
    join(ROOT, 'node_modules/.bin/tsc'),
    [
      ...options.split(' '),
      ...['--types', 'node', '--rootDir', 'src', '--outDir', folder],
      ...['src/webassembly.d.ts', 'src/xen/common.ts'],
    ],
    { cwd: ROOT, stdio: 'inherit' },
  );
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
  writeFileSync(join(folder, 'worker.js'), WORKER);
});

afterAll(() => rmSync(folder, { recursive: true }));

it('frames, their owners and domain numbers belong to one thread at a time', async () => {
  // Small, so that the machine runs out of frames too.
  const memory = Memory.create(1 << 20);
  const frames = new Frames(memory);
  const common = new Common(frames);
  const shared = frames.allocContiguous(SHARED);
  const start = (frames.alloc() * PAGE_SIZE) >>> 2;
  const { free } = frames;
  // Each thread is an owner, so there is one owner less beside the first.
  for (let more = 1; more < THREADS; more++)
    for (let frame = shared; frame < shared + SHARED; frame++) common.sharedFrames.add(frame);
  const reports = await Promise.all(
    Array.from({ length: THREADS }, (_, index) => {
      const workerData = {
        wasm: memory.wasm,
        common: common.address,
        me: index + 1,
        rounds: ROUNDS,
        threads: THREADS,
        shared,
        start,
      };
      const worker = new Worker(pathToFileURL(join(folder, 'worker.js')), { workerData });
      return new Promise<Report>((resolve, reject) => {
        worker.on('message', resolve);
        worker.on('error', reject);
      });
    }),
  );
  expect(reports.flatMap(({ wrong }) => wrong)).toEqual([]);
  expect(frames.free).toBe(free);
  // Every frame had exactly one last owner.
  expect(reports.reduce((sum, { last }) => sum + last, 0)).toBe(SHARED);
  expect(common.sharedFrames.used).toBe(0);
  expect(common.sharedFrames.saved).toBe(0);
  const domids = reports.flatMap((report) => report.domids);
  expect(new Set(domids).size).toBe(domids.length);
  reports.forEach((report, index) => {
    for (const domid of report.domids) expect(common.pcpuOf(domid)).toBe(index + 1);
  });
  expect(common.domainsOn(4)).toEqual([0, ...reports.map((report) => report.domids.length), 0]);
});
