/** Files as a processor's thread uses them itself: by calls that wait. */
import { fdatasyncSync, readSync, readvSync, writeSync, writevSync } from 'node:fs';
import type { DirectFiles } from '../../dom0/block/direct.ts';
import type { Memory } from '../../machine/memory.ts';

/** @param memory where the bytes go to, or come from */
export function directFiles(memory: Memory): DirectFiles {
  const { u8 } = memory;
  /** @returns true: all was moved, in one call; whoever gets less tries again by another way */
  const move = (
    pieces: readonly number[],
    one: (address: number, length: number) => number,
    many: (buffers: Uint8Array[]) => number,
  ): boolean => {
    try {
      if (pieces.length === 2) return one(pieces[0]!, pieces[1]!) === pieces[1]!;
      const buffers: Uint8Array[] = [];
      let bytes = 0;
      for (let index = 0; index < pieces.length; index += 2) {
        const [address, length] = [pieces[index]!, pieces[index + 1]!];
        buffers.push(u8.subarray(address, address + length));
        bytes += length;
      }
      return many(buffers) === bytes;
    } catch {
      return false;
    }
  };
  return {
    read: (file, offset, pieces) =>
      move(
        pieces,
        (address, length) => readSync(file, u8, address, length, offset),
        (buffers) => readvSync(file, buffers, offset),
      ),
    write: (file, offset, pieces) =>
      move(
        pieces,
        (address, length) => writeSync(file, u8, address, length, offset),
        (buffers) => writevSync(file, buffers, offset),
      ),
    flush: (file) => {
      try {
        fdatasyncSync(file);
        return true;
      } catch {
        return false;
      }
    },
  };
}
