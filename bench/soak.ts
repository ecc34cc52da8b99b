/**
 * The soak: a domain under mixed load (as a build, fork storms, signals, code that changes itself) for many minutes,
 * while the host's memory is watched. It must become flat, and nothing in the domain may fail.
 */
import { flatness, Progress } from './loads.ts';
import type { System } from './process.ts';
import { type Images, type Peer, SOAK, untilShell } from './systems.ts';

/** Seconds from one look to the next. */
const PACE = 10;

interface Sample {
  /** Since the load began, in seconds. */
  readonly at: number;
  readonly residentMiB: number;
  readonly cpuSeconds: number;
}

function line(minute: string, memory: string, cpu: string, counts: readonly (string | number)[]): string {
  const cells = counts.map((count) => `${count}`.padStart(9)).join('');
  return `${minute.padStart(6)} ${memory.padStart(12)} ${cpu.padStart(6)} ${cells}`;
}

export interface SoakSettings {
  readonly minutes: number;
  /** Which of the loads. */
  readonly loads: readonly string[];
  /** The scheduling priority, as nice(1) has it. */
  readonly nice: number;
}

async function watch(
  system: System,
  { minutes, loads }: SoakSettings,
  say: (text: string) => void,
): Promise<Sample[]> {
  const progress = new Progress(loads);
  const began = performance.now();
  const look = (): Sample => ({
    ...{ at: (performance.now() - began) / 1000, residentMiB: system.residentMiB },
    cpuSeconds: system.cpuSeconds,
  });
  const samples: Sample[] = [];
  let before = look();
  say(line('minute', 'memory, MiB', 'CPU', loads));
  for (let minute = 1; minute <= minutes; minute++) {
    let memory = 0;
    for (let i = 0; i < 60 / PACE; i++) {
      await system.survive(PACE);
      const sample = look();
      progress.take(system.takeOutput(), sample.at);
      samples.push(sample);
      memory += sample.residentMiB / (60 / PACE);
    }
    const now = samples.at(-1)!;
    const cpu = ((now.cpuSeconds - before.cpuSeconds) / (now.at - before.at)) * 100;
    before = now;
    say(line(`${minute}`, memory.toFixed(1), `${cpu.toFixed(0)} %`, progress.counts));
  }
  return samples;
}

/** @throws Error if the domain does not stand it, or if memory grows */
export async function soak(
  images: Images,
  peer: Peer,
  settings: SoakSettings,
  say: (text: string) => void,
): Promise<void> {
  const system = peer.boot!(images, { nice: settings.nice });
  try {
    await untilShell(system, peer.system);
    system.type(`${SOAK} ${settings.loads.join(' ')}; echo loads-$((6*7))\n`);
    await system.see(/loads-42/);
    const samples = await watch(system, settings, say);
    system.type('echo alive-$((6*7))\n');
    await system.see(/alive-42/, 60);
    const { flat, middle, last } = flatness(samples.map(({ residentMiB }) => residentMiB));
    const change = `${((last / middle - 1) * 100).toFixed(2)} %`;
    say(`memory: second third ${middle.toFixed(1)} MiB, last third ${last.toFixed(1)} MiB (${change})`);
    if (!flat) throw new Error(`memory is not flat: ${change} more in the last third`);
    say('memory is flat');
  } finally {
    await system.end();
  }
}
