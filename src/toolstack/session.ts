/**
 * One run of the program: a machine with one domain whose console is ours, until that domain ends. A reboot of the
 * guest builds it again.
 */
import { Symbols } from '../dom0/builder/symbols.ts';
import { SHUTDOWN } from '../xen/public/sched.ts';
import { STATUS } from './failure.ts';
import { type Guest, loadGuest, SCRIPT_WORD } from './guest.ts';
import type { ImageOptions } from './images/index.ts';
import { InputQueue } from './input.ts';
import { MAX_DOMAIN_MEMORY, Machine, type StartPcpu } from './machine.ts';
import { MarkerFilter } from './marker.ts';
import { DEFAULT_BRIDGE } from './net/vif-spec.ts';
import type { Terminal } from './node/terminal.ts';
import { XenstoreSocket } from './node/xenstore-socket.ts';
import { type BootOptions, UsageError } from './options.ts';
import type { Profiler } from './profile.ts';
import { formatProfile } from './profile-table.ts';
import { type DomainEnd, RunningDomain } from './running-domain.ts';

/** What the program is given by the process that it is. */
export interface SessionHost {
  readonly terminal: Terminal;
  readonly images: ImageOptions;
  readonly startPcpu: StartPcpu;
  /** Prints lines of our own (standard error). */
  say(text: string): void;
}

export class Session {
  private readonly options: BootOptions;
  private readonly host: SessionHost;
  private readonly input: InputQueue;
  /** Lines come from a pipe, and the init in the guest tells when it wants them. */
  private scripted = false;
  private machine: Machine | null = null;
  private domain: RunningDomain | null = null;
  private xenstore: XenstoreSocket | null = null;
  private profiler: Profiler | null = null;
  /** Names addresses in reports. */
  private symbols: () => Symbols | null = () => null;
  /** What the shell in the guest ended with, in a script. */
  private shellStatus = STATUS.poweroff as number;
  /** Ends the session from outside: settles {@link stopped}. */
  private stop!: (status: number) => void;
  private readonly stopped: Promise<number>;

  constructor(options: BootOptions, host: SessionHost) {
    this.options = options;
    this.host = host;
    this.input = new InputQueue(host.terminal);
    this.stopped = new Promise((resolve) => {
      this.stop = resolve;
    });
  }

  /** Ends the session with a status, whatever the domain is doing. */
  end(status: number): void {
    this.stop(status);
  }

  /** One line of numbers about the running domain; with --profile also the profile since it was last printed. */
  async statistics(): Promise<void> {
    const { machine, domain } = this;
    if (!machine || !domain) return;
    const [info, instructions, translations] = await Promise.all([
      machine.control.getDomainInfo(domain.id),
      machine.instruments.instructions(domain.id),
      machine.instruments.translations(),
    ]);
    this.host.say(
      `domain ${domain.id}: ${instructions} instructions, ${(info.cpuTimeNs / 1e9).toFixed(3)} s of CPU, ` +
        `${(info.totalPages * 4) / 1024} MiB; ` +
        `${translations?.made ?? 0} regions translated, ${translations?.stored ?? 0} kept from earlier runs`,
    );
    this.printProfile();
    this.profiler?.clear();
  }

  /** Runs until the domain is gone. @returns the exit status */
  async run(): Promise<number> {
    const { terminal } = this.host;
    try {
      return await Promise.race([this.boot(), this.stopped]);
    } finally {
      this.input.close();
      terminal.freshLine();
      terminal.stop();
      this.profiler?.stop();
      await this.printVerification();
      await this.xenstore?.close();
      await this.machine?.powerOff();
      this.printProfile();
    }
  }

  /** What --verify found: to be asked for before the machine is off. */
  private async printVerification(): Promise<void> {
    if (this.options.verify === null) return;
    const found = await this.machine?.instruments.verification().catch(() => null);
    if (!found) return;
    const { runs, instructions, regions, unchecked, differences } = found;
    this.host.say(
      `verified ${runs} region runs, ${instructions} instructions, ${differences} differences ` +
        `(${regions} regions; ${unchecked} runs could not be checked)`,
    );
  }

  private printProfile(): void {
    const { profiler } = this;
    if (profiler === null) return;
    const symbols = this.symbols();
    const table = formatProfile(profiler.report(), symbols && ((address) => symbols.name(address)));
    this.host.say(table.replaceAll('\n', this.host.terminal.newline));
  }

  private async boot(): Promise<number> {
    const { options, host } = this;
    const { terminal } = host;
    if (options.memory > MAX_DOMAIN_MEMORY) {
      throw new UsageError(
        `--memory ${options.memory / 1024}M: more than the machine can have (${MAX_DOMAIN_MEMORY >> 10}M)`,
      );
    }
    const { interactive } = terminal;
    const use = { scripted: !interactive, size: interactive ? terminal.size : null };
    const guest = await loadGuest(options, use, host.images);
    this.scripted = !interactive && guest.cmdline.split(' ').includes(SCRIPT_WORD);
    this.announce(guest);
    this.machine = await Machine.start(options.memory, host.startPcpu, (line) =>
      host.say(options.verify !== null ? (this.symbols()?.annotate(line) ?? line) : line),
    );
    this.symbols = once(() => guest.symbols ?? Symbols.ofKernel(guest.kernel.elf));
    this.machine.disks.report = (line) => host.say(line);
    if (options.hostLoopback) this.machine.networks.allowHostLoopback(DEFAULT_BRIDGE);
    if (options.xenstore !== null)
      this.xenstore = await XenstoreSocket.listen(this.machine.xenstore, options.xenstore);
    if (options.profile) {
      this.profiler = await this.machine.profiler();
      this.profiler.start();
    }
    terminal.start({
      onInput: (bytes) => this.input.add(bytes),
      onEnd: () => (terminal.interactive ? this.stop(STATUS.signal + 1) : this.input.end()),
      onEscape: () => this.stop(STATUS.poweroff),
      onClosed: () => this.stop(STATUS.signal + 13),
    });
    return Promise.race([this.domains(guest), this.machine.dead]);
  }

  private announce(guest: Guest): void {
    const { options, host } = this;
    if (options.quiet) return;
    host.say(`booting ${guest.title}${host.terminal.interactive ? ' (Ctrl-] switches it off)' : ''}`);
  }

  /** One domain after the other, as long as they end with a reboot. */
  private async domains(guest: Guest): Promise<number> {
    for (;;) {
      const end = await this.runDomain(guest);
      if (end.code === SHUTDOWN.poweroff) return this.shellStatus;
      if (end.code !== SHUTDOWN.reboot) return this.crashed(end, guest);
      await this.domain!.destroy();
      if (!this.options.quiet) this.host.say('the domain reboots');
    }
  }

  private async runDomain(guest: Guest): Promise<DomainEnd> {
    const { terminal } = this.host;
    const markers = new MarkerFilter((text) => this.told(text));
    const show = (bytes: Uint8Array) => {
      const hold = (on: boolean) => this.domain?.holdOutput(on);
      if (!terminal.write(bytes, () => hold(false))) hold(true);
    };
    const events = {
      onOutput: (bytes: Uint8Array) => show(this.scripted ? markers.filter(bytes) : bytes),
      onLog: (text: string) => {
        if (!guest.usesEmergencyConsole) return;
        show(new TextEncoder().encode(text.replaceAll(/\r?\n/g, terminal.newline)));
      },
      onRoom: () => this.input.pump(),
    };
    this.domain = await RunningDomain.start(this.machine!, guest, events, {
      trace: this.options.trace,
      vcpus: this.options.vcpus,
      disks: this.options.disks,
      shares: this.options.shares,
      vifs: this.options.vifs,
      forwards: this.options.forwards,
    });
    if (!this.scripted) this.input.connect(this.domain);
    const end = await this.domain.ended;
    this.input.connect(null);
    show(markers.flush());
    return end;
  }

  /** A message of our init (guests/initramfs/etc/session). */
  private told(text: string): void {
    if (text === 'ready') this.input.connect(this.domain);
    const exit = /^exit=(\d{1,3})$/.exec(text);
    if (exit) this.shellStatus = Number(exit[1]) & 0xff;
  }

  private async crashed(end: DomainEnd, guest: Guest): Promise<number> {
    const { terminal, say } = this.host;
    terminal.freshLine();
    terminal.stop();
    const what =
      end.code === SHUTDOWN.crash
        ? `crashed: ${end.crashReason ?? 'the guest itself reported it (a kernel panic)'}`
        : `ended with shutdown code ${end.code}`;
    say(`the domain ${what}`);
    if (!guest.usesEmergencyConsole) {
      const text = await this.machine!.control.readConsole(this.domain!.id);
      if (text) process.stderr.write(`on the emergency console:\n${text.trimEnd()}\n`);
    }
    const dump = await this.domain!.crashDump();
    const symbols = guest.symbols ?? Symbols.ofKernel(guest.kernel.elf);
    process.stderr.write(`${(symbols?.annotate(dump) ?? dump).trimEnd()}\n`);
    const { undefinedInstructions } = await this.machine!.control.machineInfo();
    for (const [name, count] of undefinedInstructions) {
      process.stderr.write(`unknown to our processor: ${name} (met ${count} times)\n`);
    }
    return STATUS.crash;
  }
}

/** The same, computed when it is first asked for. */
function once<T>(make: () => T): () => T {
  let made: { value: T } | null = null;
  return () => {
    made ??= { value: make() };
    return made.value;
  };
}
