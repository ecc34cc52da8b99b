/**
 * A store's lasting part in a file: read when the store begins, and written whenever it changes.
 *
 * It is written anew and put in place of the old one, so that there is always a whole one, whatever happens. A change
 * is on its way to the disk at once; while many come one upon the other, those of a tenth of a second go together.
 */
import { readFileSync, renameSync } from 'node:fs';
import { open, rename } from 'node:fs/promises';
import { lastingText, lasts, restoreLasting } from '../../dom0/xenstore/lasting.ts';
import type { Xenstore } from '../../dom0/xenstore/xenstore.ts';

/** Milliseconds between the end of one write and the beginning of the next. */
const REST = 100;

export class XenstoreFile {
  private readonly path: string;
  private readonly store: Xenstore;
  private readonly say: (line: string) => void;
  private changed = false;
  private writing: Promise<void> | null = null;
  /** What the file says, as far as we know. */
  private written: string | null = null;

  /**
   * Brings a store to where it was. A file that is damaged is put aside.
   * @param say takes a line about what went wrong
   */
  constructor(path: string, store: Xenstore, say: (line: string) => void) {
    this.path = path;
    this.store = store;
    this.say = say;
    this.read();
    store.onChange = (at) => {
      if (lasts(at)) this.save();
    };
  }

  /** All is written when it settles. */
  async close(): Promise<void> {
    this.store.onChange = null;
    this.changed = true;
    while (this.writing) await this.writing;
    await this.write();
  }

  private read(): void {
    let text: string;
    try {
      text = readFileSync(this.path, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') this.say(`${(error as Error).message}`);
      return;
    }
    try {
      restoreLasting(this.store, text);
      this.written = text;
    } catch (error) {
      const aside = `${this.path}.damaged`;
      renameSync(this.path, aside);
      this.say(`${this.path}: ${(error as Error).message}; kept as ${aside}, and begun anew`);
    }
  }

  private save(): void {
    this.changed = true;
    this.writing ??= this.writeAll().finally(() => {
      this.writing = null;
    });
  }

  private async writeAll(): Promise<void> {
    // What one transaction changes is told piece by piece: all of it first.
    await new Promise((resolve) => setImmediate(resolve));
    while (this.changed) {
      await this.write();
      if (this.changed) await new Promise((resolve) => setTimeout(resolve, REST));
    }
  }

  private async write(): Promise<void> {
    this.changed = false;
    const text = lastingText(this.store);
    if (text === this.written) return;
    const path = `${this.path}.new`;
    try {
      const file = await open(path, 'w', 0o600);
      try {
        await file.writeFile(text);
        await file.datasync();
      } finally {
        await file.close();
      }
      await rename(path, this.path);
      this.written = text;
    } catch (error) {
      this.say(`${this.path}: ${(error as Error).message}`);
    }
  }
}
