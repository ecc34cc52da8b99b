/**
 * What is typed into a domain, in order: it waits until the guest listens, and the source waits while the guest
 * takes no more. At the end of the input the guest is given the end-of-file character of a terminal, again and again,
 * because a program that runs just then may take one for itself, and a pipe's end would last, too.
 */

const NEWLINE = 0x0a;
const EOT = 0x04;
/** Milliseconds between two of them. */
const REPEAT_END = 1000;

/** Where input goes. */
export interface InputTarget {
  type(bytes: Uint8Array): number;
  readonly pendingInput: number;
}

/** Where it comes from. */
export interface InputSource {
  pause(): void;
  resume(): void;
}

export class InputQueue {
  private readonly source: InputSource;
  private target: InputTarget | null = null;
  private queue: Uint8Array[] = [];
  private lastByte = NEWLINE;
  private ended = false;
  private timer: NodeJS.Timeout | undefined;

  constructor(source: InputSource) {
    this.source = source;
  }

  add(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.lastByte = bytes[bytes.length - 1]!;
    this.queue.push(bytes);
    this.pump();
  }

  /** No more will come. */
  end(): void {
    if (this.ended) return;
    this.ended = true;
    // The end-of-file character counts only at the start of a line.
    if (this.lastByte !== NEWLINE) this.queue.push(new Uint8Array([NEWLINE]));
    this.queue.push(new Uint8Array([EOT]));
    this.pump();
    this.timer = setInterval(() => {
      if (this.queue.length === 0 && this.target?.pendingInput === 0) this.target.type(new Uint8Array([EOT]));
    }, REPEAT_END);
    this.timer.unref();
  }

  /** The guest listens from now on; null: not now. */
  connect(target: InputTarget | null): void {
    this.target = target;
    this.pump();
  }

  /** Moves on what can be moved: to be called when the target has room again. */
  pump(): void {
    const { target } = this;
    while (target && this.queue.length > 0) {
      const next = this.queue[0]!;
      const taken = target.type(next);
      if (taken < next.length) {
        this.queue[0] = next.subarray(taken);
        break;
      }
      this.queue.shift();
    }
    if (this.ended) return;
    if (this.queue.length > 0) this.source.pause();
    else this.source.resume();
  }

  close(): void {
    clearInterval(this.timer);
    this.target = null;
  }
}
