/** The retransmission timeout (RFC 6298), in milliseconds. */

const INITIAL = 1000;
/** As RFC 6298, section 2.4, has it. A guest that waits for a processor is slow, but loses nothing. */
const LEAST = 1000;
const MOST = 60_000;
/** What a clock of whole milliseconds can see. */
const GRANULARITY = 1;

export class RoundTrip {
  private smoothed = -1;
  private variation = 0;
  private backoffs = 0;
  private base = INITIAL;

  get timeout(): number {
    return Math.min(this.base * 2 ** this.backoffs, MOST);
  }

  /** How often in a row the timeout has passed. */
  get expiries(): number {
    return this.backoffs;
  }

  /** Of a segment that was sent once. */
  sample(milliseconds: number): void {
    if (this.smoothed < 0) {
      this.smoothed = milliseconds;
      this.variation = milliseconds / 2;
    } else {
      this.variation += (Math.abs(this.smoothed - milliseconds) - this.variation) / 4;
      this.smoothed += (milliseconds - this.smoothed) / 8;
    }
    this.base = Math.max(LEAST, this.smoothed + Math.max(GRANULARITY, 4 * this.variation));
  }

  expired(): void {
    this.backoffs++;
  }

  /** Something new was acknowledged. */
  progress(): void {
    this.backoffs = 0;
  }
}
