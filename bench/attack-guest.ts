/** Builds the guest that attacks and measures (attack/guest.c), with gcc. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** What it can do to its neighbours, one kind at a time. */
export const ATTACKS = [
  ...['calls', 'events', 'timers', 'tables', 'grants', 'memory', 'faults', 'code', 'print', 'store'],
  ...['stream', 'pins', 'any', 'mixed'],
] as const;

const FLAGS = [
  ...['-O2', '-ffreestanding', '-fno-stack-protector', '-fno-pic', '-fno-pie', '-mno-red-zone'],
  ...['-mgeneral-regs-only', '-mcmodel=kernel', '-fno-asynchronous-unwind-tables', '-fcf-protection=none'],
  ...['-nostdlib', '-static', '-no-pie', '-Wl,-z,noexecstack,--no-warn-rwx-segments,--build-id=none'],
];

/** The kernel's ELF file. @param sources the folder of guest.c @throws Error if gcc is missing or fails */
export function buildAttackGuest(sources: string): Uint8Array {
  const folder = mkdtempSync(join(tmpdir(), 'xenolith-attack-'));
  try {
    const kernel = join(folder, 'attack.elf');
    const source = (name: string) => join(sources, name);
    const args = [...FLAGS, '-T', source('guest.lds'), '-o', kernel, source('entry.S'), source('guest.c')];
    execFileSync('gcc', args, { stdio: ['ignore', 'ignore', 'pipe'] });
    return readFileSync(kernel);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** What a guest says of itself ten times a second. */
export interface Beat {
  readonly name: string;
  /** System time, ns. */
  readonly at: number;
  /** Since its start: rounds of what it does, and how many were not as they should be. */
  readonly count: number;
  readonly bad: number;
  /** Lateness since the last one, ns. */
  readonly sum: number;
  readonly most: number;
}

/** The beats in a text of whole lines. */
export function readBeats(text: string): Beat[] {
  return [...text.matchAll(/^beat (\w+) (\d+) (\d+) (\d+) (\d+) (\d+)\r?$/gm)].map(([, name, ...numbers]) => {
    const [at, count, bad, sum, most] = numbers.map(Number) as [number, number, number, number, number];
    return { name: name!, at, count, bad, sum, most };
  });
}
