/** A domain on a machine, from its creation to its end, with the back ends that serve it. */
import { buildDomain } from '../dom0/builder/build.ts';
import { ConsoleBackend } from '../dom0/console.ts';
import { SHUTDOWN } from '../xen/public/sched.ts';
import type { Guest } from './guest.ts';
import type { Machine } from './machine.ts';

/** How a domain ended. */
export interface DomainEnd {
  /** SHUTDOWN_* */
  readonly code: number;
  /** For a crash: why, in one line; null if the guest itself reported it and gave no reason. */
  readonly crashReason: string | null;
}

export interface DomainEvents {
  /** The guest printed on its console. */
  onOutput(bytes: Uint8Array): void;
  /** The guest printed by the emergency console (console_io). */
  onLog(text: string): void;
  /** There is room for input again, after {@link RunningDomain.type} did not take all. */
  onRoom(): void;
}

export class RunningDomain {
  readonly id: number;
  /** Settles when the domain has shut down; it is not destroyed by that. */
  readonly ended: Promise<DomainEnd>;
  private readonly machine: Machine;
  private readonly events: DomainEvents;
  private console: ConsoleBackend | null = null;
  private consolePort = 0;
  private end!: (end: DomainEnd) => void;

  private constructor(machine: Machine, id: number, events: DomainEvents) {
    this.machine = machine;
    this.id = id;
    this.events = events;
    this.ended = new Promise((resolve) => {
      this.end = resolve;
    });
    machine.listen(id, {
      onEvent: (port) => {
        if (port === this.consolePort) this.serveConsole();
      },
      onLog: (text) => events.onLog(text),
      onShutdown: (code, crashReason) => {
        this.console?.close();
        this.end({ code, crashReason });
      },
    });
  }

  /** Creates a domain, builds the guest in it and lets it run. */
  static async start(
    machine: Machine,
    guest: Guest,
    events: DomainEvents,
    { trace = false }: { trace?: boolean } = {},
  ): Promise<RunningDomain> {
    const { control } = machine;
    const id = await control.createDomain({ maxPages: guest.pages, vcpus: 1 });
    const domain = new RunningDomain(machine, id, events);
    try {
      await domain.build(guest);
      if (trace) await control.setTrace(id, true);
      await control.unpauseDomain(id);
    } catch (error) {
      await domain.destroy().catch(() => {});
      throw error;
    }
    return domain;
  }

  private async build(guest: Guest): Promise<void> {
    const { machine } = this;
    const built = await buildDomain(machine.memory, machine.control, this.id, guest);
    this.consolePort = built.console.port;
    this.console = new ConsoleBackend(machine.memory, built.console.address, {
      onOutput: (bytes) => this.events.onOutput(bytes),
      onRoom: () => this.events.onRoom(),
      notify: () => machine.sendEvent(this.id, built.console.port),
    });
  }

  /** Types on its console. @returns how many bytes were taken; if not all, onRoom tells when to go on */
  type(bytes: Uint8Array): number {
    return this.console?.write(bytes) ?? 0;
  }

  /** Bytes typed that the guest has not taken yet. */
  get pendingInput(): number {
    return this.console?.pendingInput ?? 0;
  }

  /** Whoever shows its output cannot keep up, or can again. */
  holdOutput(hold: boolean): void {
    if (hold) this.console?.pause();
    else {
      this.console?.resume();
      this.serveConsole();
    }
  }

  /** The domain's state as text, for a person: registers, stack, last transfers. */
  crashDump(): Promise<string> {
    return this.machine.control.crashDump(this.id);
  }

  /** Ends it, whatever it is doing, and gives its memory back. */
  async destroy(): Promise<void> {
    this.console?.close();
    this.machine.listen(this.id, null);
    this.end({ code: SHUTDOWN.poweroff, crashReason: null });
    await this.machine.control.destroyDomain(this.id);
  }

  private serveConsole(): void {
    // A guest that prints without end must not keep this thread from its other work.
    if (this.console?.process()) setImmediate(() => this.serveConsole());
  }
}
