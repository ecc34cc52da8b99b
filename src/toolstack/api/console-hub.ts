/**
 * A domain's console and everybody who looks at it.
 *
 * All viewers see what is printed, and all may type. What is printed while nobody looks is kept, up to a limit, for
 * the first who does. A viewer that cannot keep up holds the guest back for a moment; one that still cannot then
 * loses output, and is told how much: no viewer, dead or malicious, stops a guest, and none fills our memory.
 */
import type { ConsoleConnection, ConsoleViewer, Replay } from './toolstack.ts';

/** How much of the output is kept, in bytes. */
const HISTORY = 64 * 1024;
/** For how long a slow viewer holds the guest back, ms. */
const PATIENCE = 2000;

/** The guest's side. */
export interface ConsoleSource {
  /** @returns how many bytes were taken */
  type(bytes: Uint8Array): number;
  holdOutput(hold: boolean): void;
}

interface Seat {
  readonly viewer: ConsoleViewer;
  /** It has not taken all that it was given. */
  behind: boolean;
  /** It had its time, and loses output until it has caught up. */
  losing: boolean;
  /** Bytes that it lost. */
  lost: number;
}

export class ConsoleHub {
  private readonly history = new Uint8Array(HISTORY);
  /** Bytes printed so far, and how many of them somebody saw. */
  private printed = 0;
  private seen = 0;
  private readonly seats = new Set<Seat>();
  private source: ConsoleSource | null = null;
  private timer: NodeJS.Timeout | undefined;
  private held = false;
  private over = false;

  /** The guest listens from now on. */
  connect(source: ConsoleSource): void {
    this.source = source;
    if (this.held) source.holdOutput(true);
  }

  /** The guest printed. */
  output(bytes: Uint8Array): void {
    this.keep(bytes);
    for (const seat of [...this.seats]) this.show(seat, bytes);
    if (this.seats.size > 0) this.seen = this.printed;
    this.settle();
  }

  /** The guest takes input again. */
  room(): void {
    for (const { viewer } of [...this.seats]) viewer.onRoom?.();
  }

  /** The domain is gone. Who comes now still sees what is kept. */
  end(): void {
    if (this.over) return;
    this.over = true;
    this.source = null;
    clearTimeout(this.timer);
    for (const { viewer } of [...this.seats]) viewer.onEnd();
    this.seats.clear();
  }

  attach(viewer: ConsoleViewer, replay: Replay): ConsoleConnection {
    const seat: Seat = { viewer, behind: false, losing: false, lost: 0 };
    const before = this.kept(replay);
    this.seats.add(seat);
    this.seen = this.printed;
    if (before.length > 0) this.show(seat, before);
    if (this.over) {
      this.seats.delete(seat);
      viewer.onEnd();
    }
    this.settle();
    return {
      type: (bytes) => (this.source ? this.source.type(bytes) : bytes.length),
      drained: () => {
        seat.behind = false;
        if (seat.losing) this.tellLoss(seat);
        this.settle();
      },
      close: () => {
        this.seats.delete(seat);
        this.settle();
      },
    };
  }

  private show(seat: Seat, bytes: Uint8Array): void {
    if (seat.losing) seat.lost += bytes.length;
    else if (!seat.viewer.onOutput(bytes)) seat.behind = true;
  }

  private tellLoss(seat: Seat): void {
    const { lost } = seat;
    seat.losing = false;
    seat.lost = 0;
    if (lost === 0) return;
    this.show(seat, new TextEncoder().encode(`\r\n[${lost} bytes of output were lost here]\r\n`));
  }

  /** Holds the guest back while somebody is behind and has time left, and only then. */
  private settle(): void {
    const wait = [...this.seats].some(({ behind, losing }) => behind && !losing);
    if (wait === this.held) return;
    this.held = wait;
    clearTimeout(this.timer);
    if (wait) {
      this.timer = setTimeout(() => this.loseAll(), PATIENCE);
      this.timer.unref();
    }
    this.source?.holdOutput(wait);
  }

  private loseAll(): void {
    for (const seat of this.seats) if (seat.behind) seat.losing = true;
    this.settle();
  }

  private keep(bytes: Uint8Array): void {
    const last = bytes.subarray(Math.max(0, bytes.length - HISTORY));
    const at = (this.printed + bytes.length - last.length) % HISTORY;
    const first = Math.min(last.length, HISTORY - at);
    this.history.set(last.subarray(0, first), at);
    this.history.set(last.subarray(first), 0);
    this.printed += bytes.length;
  }

  private kept(replay: Replay): Uint8Array {
    const oldest = Math.max(0, this.printed - HISTORY);
    const from = replay === 'none' ? this.printed : Math.max(oldest, replay === 'all' ? 0 : this.seen);
    return Uint8Array.from(
      { length: this.printed - from },
      (_, index) => this.history[(from + index) % HISTORY]!,
    );
  }
}
