/** The processor: an integer program, natively and in a guest, by its own clock and by our count of instructions. */
import { spawnSync } from 'node:child_process';
import type { System } from './process.ts';
import { type Row, Samples, type SystemName } from './report.ts';
import { type Boot, type Images, PROBE, untilShell } from './systems.ts';

/** Rounds of the probe's work: about 70 million instructions each. */
const WORK = 20;
const END = /probe end (\d+\.\d+) ([0-9a-f]{16})/;

interface Probe {
  seconds: number;
  checksum: string;
}

function parse(match: RegExpExecArray): Probe {
  return { seconds: Number(match[1]), checksum: match[2]! };
}

/** Guest instructions executed so far, as xenolith tells on SIGUSR1. */
async function instructions(system: System): Promise<number> {
  system.forgetErrors();
  system.signal('SIGUSR1');
  return Number((await system.see(/(\d+) instructions/, 30, 'errors'))[1]);
}

export async function benchCpu(
  images: Images,
  systems: ReadonlyMap<SystemName, Boot>,
  rounds: number,
  say: (text: string) => void,
): Promise<Row[]> {
  const seconds = new Map<SystemName, number[]>();
  const counts: number[] = [];
  const checksums = new Set<string>();
  const note = (name: SystemName, probe: Probe, round: number) => {
    seconds.set(name, [...(seconds.get(name) ?? []), probe.seconds]);
    checksums.add(probe.checksum);
    say(`cpu ${round + 1}/${rounds} ${name}: ${probe.seconds.toFixed(3)} s`);
  };
  for (let round = 0; round < rounds; round++) {
    const native = END.exec(spawnSync(images.probe, [`${WORK}`], { encoding: 'utf8' }).stdout);
    if (!native) throw new Error('the probe does not run here');
    note('native', parse(native), round);
    for (const [name, boot] of systems) {
      const system = boot(images);
      try {
        await untilShell(system, name);
        system.type(`${PROBE} ${WORK}\n`);
        // The probe rests for a second before and after its work: time to read the counter.
        await system.see(/probe begin/);
        const before = name === 'ours' ? await instructions(system) : 0;
        const probe = parse(await system.see(END, 600));
        if (name === 'ours') counts.push((await instructions(system)) - before);
        note(name, probe, round);
      } finally {
        await system.end();
      }
    }
  }
  if (checksums.size > 1) throw new Error(`the probe's results differ: ${[...checksums].join(', ')}`);
  const samples = new Samples('cpu');
  const count = counts.reduce((sum, value) => sum + value, 0) / counts.length;
  for (const [name, all] of seconds) {
    for (const value of all) {
      if (counts.length > 0) samples.add('integer probe', 'M instructions/s', name, count / value / 1e6);
      samples.add('integer probe, time', 's', name, value);
    }
  }
  return samples.result;
}
