/**
 * How long somebody who has nothing to do goes on looking before he sleeps. To be woken takes longer than many an answer;
 * looking takes a core that others may want. So, as KVM's halt polling does, the time grows while sleeps turn out to be
 * short, and shrinks where they are long.
 */

/** Milliseconds: the most, and the first step (as KVM's halt_poll_ns and halt_poll_ns_grow_start, which are 0.2 and 0.01). */
const MOST = 0.3;
const FIRST = 0.01;

export class HaltPoll {
  private time = 0;
  private since = 0;

  /** For how long to look, ms. */
  get milliseconds(): number {
    return this.time;
  }

  /** He sleeps now. @param now ms */
  slept(now: number): void {
    this.since = now;
  }

  /** Something has come. @param now ms */
  woke(now: number): void {
    if (now - this.since <= MOST) this.time = Math.min(MOST, Math.max(FIRST, this.time * 2));
    else this.time = this.time > FIRST ? this.time / 2 : 0;
  }
}
