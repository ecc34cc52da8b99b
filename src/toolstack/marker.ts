/**
 * Messages from our own init to the host, in the middle of the console's output: `ESC ] xenolith;TEXT BEL`
 * (guests/initramfs/etc/session). They are taken out as the output streams by; everything else passes as it is.
 */

const START = new TextEncoder().encode('\x1b]xenolith;');
const END = 0x07;
/** A message is a word or two; more than this is something else that only starts alike. */
const LONGEST = START.length + 64;

export class MarkerFilter {
  private readonly onMessage: (text: string) => void;
  /** A message that has begun, or what may be the begin of one. */
  private held: number[] = [];

  constructor(onMessage: (text: string) => void) {
    this.onMessage = onMessage;
  }

  /** The bytes without messages. What may be the begin of one is held back until it is decided. */
  filter(bytes: Uint8Array): Uint8Array {
    if (this.held.length === 0 && !bytes.includes(START[0]!)) return bytes;
    const passed: number[] = [];
    for (const byte of bytes) {
      const { held } = this;
      if (held.length < START.length ? byte === START[held.length] : byte !== END && held.length < LONGEST) {
        held.push(byte);
        continue;
      }
      this.held = [];
      if (held.length >= START.length && byte === END) {
        this.onMessage(new TextDecoder().decode(new Uint8Array(held.slice(START.length))));
        continue;
      }
      passed.push(...held);
      if (byte === START[0]) this.held.push(byte);
      else passed.push(byte);
    }
    return new Uint8Array(passed);
  }

  /** What is held back, at the end of the output. */
  flush(): Uint8Array {
    return new Uint8Array(this.held.splice(0));
  }
}
