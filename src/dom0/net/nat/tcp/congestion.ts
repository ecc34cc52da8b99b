/**
 * How much may be under way: slow start and congestion avoidance (RFC 5681), counted in bytes since acknowledgements
 * come for many segments at once, and recovery from a loss by NewReno (RFC 6582).
 */
import { add, distance } from './sequence.ts';

/** Segments in the initial window (RFC 6928). */
const INITIAL_SEGMENTS = 10;
/** Duplicate acknowledgements that mean a loss. */
const DUPLICATES = 3;
/** More than any window. */
const WINDOW_MAX = 1 << 24;

export class Congestion {
  window = 0;
  private mss = 0;
  private threshold = WINDOW_MAX;
  private duplicates = 0;
  private credit = 0;
  private recovering = false;
  /** Recovery ends when this is acknowledged; a new one begins only beyond it. */
  private recover = 0;
  /** What there was before the timer ran out, until it is known whether it did so for a reason. */
  private before: { window: number; threshold: number; beyond: number } | null = null;

  start(mss: number, seq: number): void {
    this.mss = mss;
    this.window = INITIAL_SEGMENTS * mss;
    this.recover = seq;
  }

  /**
   * Something new was acknowledged.
   * @param acked bytes @param una the first byte that is not acknowledged
   * @returns true: the segment at una was lost too, and is to be sent again
   */
  acknowledged(acked: number, una: number): boolean {
    this.duplicates = 0;
    const { before } = this;
    this.before = null;
    if (before && distance(una, before.beyond) > 0) {
      // More is acknowledged than was sent again: nothing was lost, the guest only took its time.
      this.window = before.window;
      this.threshold = before.threshold;
      return false;
    }
    if (this.recovering) {
      if (distance(una, this.recover) >= 0) {
        this.recovering = false;
        this.window = Math.max(this.threshold, 2 * this.mss);
        return false;
      }
      this.window = Math.max(this.window - acked + (acked >= this.mss ? this.mss : 0), this.mss);
      return true;
    }
    if (this.window < this.threshold) this.window += acked;
    else {
      this.credit += acked;
      if (this.credit >= this.window) {
        this.credit -= this.window;
        this.window += this.mss;
      }
    }
    this.window = Math.min(this.window, WINDOW_MAX);
    return false;
  }

  /**
   * An acknowledgement that says nothing new while data is under way.
   * @param flight bytes under way @param una first of them @param max behind the last of them
   * @returns true: the segment at una is lost, and is to be sent again
   */
  duplicate(flight: number, una: number, max: number): boolean {
    if (this.recovering) {
      this.window = Math.min(this.window + this.mss, WINDOW_MAX);
      return false;
    }
    if (++this.duplicates !== DUPLICATES || distance(una, this.recover) < 0) return false;
    this.threshold = Math.max(flight / 2, 2 * this.mss);
    this.window = this.threshold + DUPLICATES * this.mss;
    this.recovering = true;
    this.recover = max;
    return true;
  }

  /** The retransmission timer ran out. The segment at una is sent again, and nothing else before an answer. */
  timedOut(flight: number, una: number, max: number): void {
    this.before ??= { window: this.window, threshold: this.threshold, beyond: add(una, this.mss) };
    this.threshold = Math.max(flight / 2, 2 * this.mss);
    this.window = this.mss;
    this.recovering = false;
    this.duplicates = 0;
    this.credit = 0;
    // Duplicates of what is sent again now mean nothing.
    this.recover = max;
  }
}
