/** The machine's message buffer (xl dmesg): the last lines, up to a size. */

/** Characters that are kept. */
const SIZE = 64 * 1024;

export class MessageLog {
  private lines: string[] = [];
  private size = 0;
  /** The begin of a line that has not ended yet, by who writes it. */
  private readonly open = new Map<string, string>();

  /** @param origin in front of the line, as Xen has it: "XEN", "d1" */
  line(origin: string, text: string): void {
    const line = `(${origin}) ${printable(text)}\n`;
    this.lines.push(line);
    this.size += line.length;
    while (this.size > SIZE) this.size -= this.lines.shift()!.length;
  }

  /** A piece of text, which may be any part of lines. */
  text(origin: string, text: string): void {
    const lines = ((this.open.get(origin) ?? '') + text).split('\n');
    const last = lines.pop()!;
    for (const line of lines) this.line(origin, line);
    // Without an end a line is one at this length, too.
    if (last.length > 1024) this.line(origin, last);
    if (last.length > 1024 || last === '') this.open.delete(origin);
    else this.open.set(origin, last);
  }

  read(): string {
    return this.lines.join('');
  }

  clear(): void {
    this.lines = [];
    this.size = 0;
  }

  /** Ends the line that somebody has begun. */
  close(origin: string): void {
    const rest = this.open.get(origin);
    this.open.delete(origin);
    if (rest) this.line(origin, rest);
  }
}

/** Guests write here, and people read it on their terminals. */
function printable(text: string): string {
  return text.replaceAll(/(?!\t)\p{Cc}/gu, '');
}
