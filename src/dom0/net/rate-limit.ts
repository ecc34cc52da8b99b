/** How much an interface may send: a credit that is filled up at intervals, as `rate=` of a vif says it. */

/** A packet of the largest size passes sooner or later, however small the credit. */
const BURST_LEAST = 131_072;

export class RateLimit {
  private readonly bytes: number;
  private readonly interval: number;
  private readonly burst: number;
  private credit: number;
  private filled: number;

  /** @param bytes in each interval @param interval ns @param now ns */
  constructor(bytes: number, interval: number, now: number) {
    this.bytes = bytes;
    this.interval = interval;
    this.burst = Math.max(bytes, BURST_LEAST);
    this.credit = bytes;
    this.filled = now;
  }

  /** @returns 0: they may be sent, and are counted; otherwise the time, ns, at which to ask again */
  take(bytes: number, now: number): number {
    const passed = Math.floor((now - this.filled) / this.interval);
    if (passed > 0) {
      this.credit = Math.min(this.credit + passed * this.bytes, this.burst);
      this.filled += passed * this.interval;
    }
    if (bytes <= this.credit) {
      this.credit -= bytes;
      return 0;
    }
    const missing = Math.min(bytes, this.burst) - this.credit;
    return this.filled + Math.max(Math.ceil(missing / this.bytes), 1) * this.interval;
  }
}
