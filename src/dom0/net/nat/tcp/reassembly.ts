/** Segments that arrived before those that precede them. */
import { add, distance } from './sequence.ts';

/** Pieces that are kept; what comes beyond that is sent again by its sender. */
const PIECES_MAX = 256;

interface Piece {
  seq: number;
  bytes: Uint8Array;
}

export class Reassembly {
  /** By sequence number; they neither overlap nor touch what was delivered. */
  private pieces: Piece[] = [];

  get empty(): boolean {
    return this.pieces.length === 0;
  }

  /** Keeps a copy of what of a segment is not here yet. */
  insert(seq: number, bytes: Uint8Array): void {
    let start = seq;
    let rest = bytes;
    let index = 0;
    while (rest.length > 0) {
      const piece = this.pieces[index];
      if (!piece) {
        this.place(index, start, rest);
        return;
      }
      const gap = distance(piece.seq, start);
      if (gap > 0) {
        // Before this piece, maybe up to it, maybe beyond.
        const part = rest.subarray(0, gap);
        if (!this.place(index, start, part)) return;
        index++;
        start = add(start, part.length);
        rest = rest.subarray(part.length);
        continue;
      }
      const covered = Math.max(0, Math.min(rest.length, piece.bytes.length + gap));
      start = add(start, covered);
      rest = rest.subarray(covered);
      index++;
    }
  }

  /** The bytes that come at a sequence number, if they are here; what lies before it is forgotten. */
  take(seq: number): Uint8Array | null {
    for (let piece = this.pieces[0]; piece; piece = this.pieces[0]) {
      const passed = distance(seq, piece.seq);
      if (passed < 0) return null;
      this.pieces.shift();
      if (passed < piece.bytes.length) return piece.bytes.subarray(passed);
    }
    return null;
  }

  clear(): void {
    this.pieces = [];
  }

  private place(index: number, seq: number, bytes: Uint8Array): boolean {
    if (this.pieces.length >= PIECES_MAX) return false;
    this.pieces.splice(index, 0, { seq, bytes: bytes.slice() });
    return true;
  }
}
