/**
 * Gives parts of a file back to the host's file system. Node has no fallocate(2): the program of that name (in
 * util-linux, which every Debian has) does it, on a descriptor that it inherits.
 *
 * A process for each discard costs some milliseconds, so only large ones are worth it; one at a time, however many
 * a guest asks for at once. That a discard is not carried out is no error: it is advice.
 */
import { spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { Mutex } from '../../dom0/block/mutex.ts';

/** What a guest is told to align to, in bytes; and the least that is given back. */
export const HOLE_GRANULARITY = 64 << 10;
const LEAST = 256 << 10;
const PROGRAM = 'fallocate';

export class Holes {
  private readonly turn = new Mutex();
  private works: boolean;

  constructor() {
    this.works = process.platform === 'linux' && installed(PROGRAM);
  }

  /** Whether it can be done at all, as far as we know. */
  get available(): boolean {
    return this.works;
  }

  /** Bytes read as zero after it, or stay as they are. */
  async punch(fd: number, offset: number, length: number): Promise<void> {
    const start = Math.ceil(offset / HOLE_GRANULARITY) * HOLE_GRANULARITY;
    const end = Math.floor((offset + length) / HOLE_GRANULARITY) * HOLE_GRANULARITY;
    if (end - start < LEAST) return;
    await this.turn.run(async () => {
      // A file system that cannot do it will not learn it.
      if (this.works && !(await run(fd, start, end - start))) this.works = false;
    });
  }
}

function run(fd: number, offset: number, length: number): Promise<boolean> {
  return new Promise((resolve) => {
    const child = spawn(PROGRAM, ['-p', '-o', `${offset}`, '-l', `${length}`, '/proc/self/fd/3'], {
      stdio: ['ignore', 'ignore', 'ignore', fd],
    });
    child.once('error', () => resolve(false));
    child.once('exit', (code) => resolve(code === 0));
  });
}

function installed(program: string): boolean {
  return (process.env['PATH'] ?? '').split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}
