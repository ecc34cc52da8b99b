/** Starting a domain, and having it: seconds to the shell, memory of the host, CPU when idle. */
import type { System } from './process.ts';
import { Samples } from './report.ts';
import { MEMORY, type Peer } from './systems.ts';

const sleep = (seconds: number) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

/** How long a system comes to rest before its idleness is measured, in seconds. */
const REST = 3;

export const BOOT_ROWS = {
  kernel: 'kernel entry to shell',
  command: 'command to shell',
  warm: 'warm second boot',
  memory: `host memory, domain of ${MEMORY} MiB`,
  idle: 'host CPU, idle',
} as const;

/**
 * When a system's kernel was entered, in ms of performance.now(): when it said its first byte. User-Mode Linux is the
 * kernel, and says nothing for a while.
 */
function entry(system: System, peer: Peer, started: number): number {
  return peer.system === 'uml' ? started : system.entered;
}

export class BootResults {
  private readonly samples = new Samples('boot');

  /** A system is at its shell since `shell`; its process was started at `started` (ms of performance.now()). */
  atShell(system: System, peer: Peer, started: number, shell: number): void {
    const { system: name, variant } = peer;
    this.samples.add(BOOT_ROWS.kernel, 's', name, (shell - entry(system, peer, started)) / 1000, variant);
    this.samples.add(BOOT_ROWS.command, 's', name, (shell - started) / 1000, variant);
    this.samples.add(BOOT_ROWS.memory, 'MiB', name, system.residentMiB, variant);
  }

  /** Kernel entry to shell, with what an earlier boot has left. Who leaves nothing boots as ever. */
  atShellAgain(system: System, peer: Peer, started: number, shell: number): void {
    const seconds = (shell - entry(system, peer, started)) / 1000;
    this.samples.add(BOOT_ROWS.warm, 's', peer.system, seconds, peer.variant);
  }

  /** Watches an idle system for some seconds. */
  async watchIdle(system: System, { system: name, variant }: Peer, seconds: number): Promise<void> {
    await sleep(REST);
    const before = system.cpuSeconds;
    await sleep(seconds);
    const used = ((system.cpuSeconds - before) / seconds) * 100;
    this.samples.add(BOOT_ROWS.idle, '% of a core', name, used, variant);
  }

  get result() {
    const order: readonly string[] = Object.values(BOOT_ROWS);
    return this.samples.result.sort((a, b) => order.indexOf(a.name) - order.indexOf(b.name));
  }
}
