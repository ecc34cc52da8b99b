/**
 * The soak: a domain under mixed load (as a build, fork storms, signals, code that changes itself) for many minutes,
 * while the host's memory is watched. It must become flat, and nothing in the domain may fail.
 */
import type { System } from './process.ts';
import { type Images, type Peer, SOAK, untilShell } from './systems.ts';

/** Seconds from one look to the next. */
const PACE = 10;
/** How much more memory the last third of the time may use than the second, as a factor. */
const FLAT = 1.03;
/** After how many seconds without a word a load stands still. */
const SILENCE = 300;

const LOADS = ['files', 'code', 'storm', 'signals'] as const;

interface Sample {
  /** Since the load began, in seconds. */
  readonly at: number;
  readonly residentMiB: number;
  readonly cpuSeconds: number;
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Is memory flat? Compares the means of the second and the last third. */
export function flat(samples: readonly number[]): { flat: boolean; middle: number; last: number } {
  const third = Math.floor(samples.length / 3);
  const middle = mean(samples.slice(-2 * third, -third));
  const last = mean(samples.slice(-third));
  return { flat: last <= middle * FLAT, middle, last };
}

/** What the loads said: rounds so far, and failures. */
class Progress {
  private readonly rounds = new Map<string, number>();
  private readonly heard = new Map<string, number>();

  /** Takes lines of the console. @throws Error if one tells of a failure */
  take(lines: string, now: number): void {
    for (const [, name, rounds, failure] of lines.matchAll(/^soak: (\w+) (?:(\d+)|failed: (.*))\r?$/gm)) {
      if (failure !== undefined) throw new Error(`${name}: ${failure}`);
      this.rounds.set(name!, Number(rounds));
      this.heard.set(name!, now);
    }
    const silent = LOADS.find((name) => now - (this.heard.get(name) ?? 0) > SILENCE);
    if (silent) throw new Error(`${silent}: not a word for ${SILENCE} s`);
  }

  get columns(): string[] {
    return LOADS.map((name) => `${this.rounds.get(name) ?? 0}`.padStart(9));
  }
}

async function watch(system: System, minutes: number, say: (text: string) => void): Promise<Sample[]> {
  const samples: Sample[] = [];
  const progress = new Progress();
  const began = performance.now();
  const now = () => (performance.now() - began) / 1000;
  let minute = 0;
  say(`minute  memory, MiB    CPU ${LOADS.map((name) => name.padStart(9)).join('')}`);
  while (now() < minutes * 60) {
    await system.survive(PACE);
    progress.take(system.takeOutput(), now());
    samples.push({ at: now(), residentMiB: system.residentMiB, cpuSeconds: system.cpuSeconds });
    if (Math.floor(now() / 60) === minute) continue;
    const own = samples.filter(({ at }) => at >= minute * 60);
    const [first, last] = [samples.at(-own.length - 1) ?? own[0]!, own.at(-1)!];
    const cpu = ((last.cpuSeconds - first.cpuSeconds) / (last.at - first.at)) * 100;
    const memory = mean(own.map(({ residentMiB }) => residentMiB));
    minute = Math.floor(now() / 60);
    say(
      `${minute}`.padStart(6) +
        memory.toFixed(1).padStart(13) +
        `${cpu.toFixed(0)} %`.padStart(7) +
        ` ${progress.columns.join('')}`,
    );
  }
  return samples;
}

/** @throws Error if the domain does not stand it, or if memory grows */
export async function soak(
  images: Images,
  peer: Peer,
  minutes: number,
  say: (text: string) => void,
): Promise<void> {
  const system = peer.boot!(images);
  try {
    await untilShell(system, peer.system);
    system.type(`${SOAK}; echo loads-$((6*7))\n`);
    await system.see(/loads-42/);
    const samples = await watch(system, minutes, say);
    system.type('echo alive-$((6*7))\n');
    await system.see(/alive-42/, 60);
    const { flat: good, middle, last } = flat(samples.map(({ residentMiB }) => residentMiB));
    const change = ((last / middle - 1) * 100).toFixed(2);
    say(`memory: second third ${middle.toFixed(1)} MiB, last third ${last.toFixed(1)} MiB (${change} %)`);
    if (!good) throw new Error(`memory is not flat: ${change} % more in the last third`);
    say('memory is flat');
  } finally {
    await system.end();
  }
}
