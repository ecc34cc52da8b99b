/** What a domain shows on its console, and a way to run lines of its shell. */
export abstract class Screen {
  text = '';
  private readonly decoder = new TextDecoder();
  private readonly patience: number;
  private watcher: () => void = () => {};
  private lines = 0;

  /** @param patience milliseconds until an answer is missed */
  constructor(patience: number) {
    this.patience = patience;
  }

  protected abstract type(bytes: Uint8Array): void;

  onOutput(bytes: Uint8Array): void {
    this.text += this.decoder.decode(bytes, { stream: true });
    this.watcher();
  }

  /** Waits for something to be shown. @returns the pattern's first group @throws Error: it is not */
  see(pattern: RegExp): Promise<string> {
    return new Promise((resolve, reject) => {
      const missed = () => reject(new Error(`not seen: ${pattern}\n${this.text}`));
      const timer = setTimeout(missed, this.patience);
      this.watcher = () => {
        const match = pattern.exec(this.text);
        if (!match) return;
        clearTimeout(timer);
        resolve(match[1] ?? '');
      };
      this.watcher();
    });
  }

  /** @returns what the line printed */
  async run(line: string): Promise<string> {
    const end = `end${++this.lines}`;
    this.text = '';
    this.type(new TextEncoder().encode(`echo start; ${line}; echo e''${end.slice(1)}\n`));
    return (await this.see(new RegExp(`\\nstart\\r?\\n([\\s\\S]*)${end}`))).replaceAll('\r', '').trim();
  }
}
