/** What waits to be taken by the other side of a connection: messages in order, taken in pieces of any size. */

interface Message {
  readonly bytes: Uint8Array;
  /** Of an event: what makes it the same as another one. */
  readonly event: string | null;
}

/** Messages that are gone are dropped from the list in bulk, when there are this many. */
const BULK = 256;

export class OutputQueue {
  private messages: Message[] = [];
  /** The first message that is still to be taken, and how many bytes of it are gone. */
  private first = 0;
  private sent = 0;
  private total = 0;
  private readonly events = new Set<string>();

  /** Messages that are not taken in full. */
  get length(): number {
    return this.messages.length - this.first;
  }

  /** Bytes to be taken. */
  get bytes(): number {
    return this.total - this.sent;
  }

  /** Whether the event waits already, and nothing of it has been taken. */
  has(event: string): boolean {
    return this.events.has(event);
  }

  push(bytes: Uint8Array, event: string | null = null): void {
    this.messages.push({ bytes, event });
    this.total += bytes.length;
    if (event !== null) this.events.add(event);
  }

  /** Up to `max` bytes. */
  take(max: number): Uint8Array {
    const bytes = new Uint8Array(Math.min(max, this.bytes));
    let at = 0;
    while (at < bytes.length) {
      const message = this.messages[this.first]!;
      if (message.event !== null) this.events.delete(message.event);
      const piece = message.bytes.subarray(this.sent, this.sent + bytes.length - at);
      bytes.set(piece, at);
      at += piece.length;
      this.sent += piece.length;
      if (this.sent === message.bytes.length) this.drop(message);
    }
    return bytes;
  }

  /** A copy of all that is still to be taken. */
  remaining(): Uint8Array {
    const bytes = new Uint8Array(this.bytes);
    let at = 0;
    let skip = this.sent;
    for (const message of this.messages.slice(this.first)) {
      bytes.set(message.bytes.subarray(skip), at);
      at += message.bytes.length - skip;
      skip = 0;
    }
    return bytes;
  }

  clear(): void {
    this.messages = [];
    this.first = 0;
    this.sent = 0;
    this.total = 0;
    this.events.clear();
  }

  private drop({ bytes }: Message): void {
    this.total -= bytes.length;
    this.sent = 0;
    this.first++;
    if (this.first < BULK && this.first < this.messages.length) return;
    // Half of the list at least, so that what is moved was paid for by what is dropped.
    if (this.first * 2 < this.messages.length) return;
    this.messages.splice(0, this.first);
    this.first = 0;
  }
}
