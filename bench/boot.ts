/** Starting a domain, and having it: seconds to the shell, memory of the host, CPU when idle. */

import type { SystemName } from './report.ts';
import { type Row, Samples } from './report.ts';
import { type Boot, type Images, MEMORY, untilShell } from './systems.ts';

const sleep = (seconds: number) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

export interface BootSettings {
  rounds: number;
  /** How long an idle domain is watched, in seconds. */
  idleSeconds: number;
}

export async function benchBoot(
  images: Images,
  systems: ReadonlyMap<SystemName, Boot>,
  { rounds, idleSeconds }: BootSettings,
  say: (text: string) => void,
): Promise<Row[]> {
  const samples = new Samples('boot');
  for (let round = 0; round < rounds; round++) {
    for (const [name, boot] of systems) {
      const started = performance.now();
      const system = boot(images);
      try {
        const shell = await untilShell(system, name);
        samples.add('kernel entry to shell', 's', name, (shell - system.entered) / 1000);
        samples.add('command to shell', 's', name, (shell - started) / 1000);
        samples.add(`host memory, domain of ${MEMORY} MiB`, 'MiB', name, system.residentMiB);
        say(`boot ${round + 1}/${rounds} ${name}: ${((shell - started) / 1000).toFixed(1)} s`);
        if (round > 0) continue;
        await sleep(3);
        const before = system.cpuSeconds;
        await sleep(idleSeconds);
        const used = ((system.cpuSeconds - before) / idleSeconds) * 100;
        samples.add(`host CPU, idle for ${idleSeconds} s`, '% of a core', name, used);
        say(`idle ${name}: ${used.toFixed(2)} % of a core`);
      } finally {
        await system.end();
      }
    }
  }
  return samples.result;
}
