/**
 * How fast a virtual CPU gets on: from this follows after how many instructions the clock is looked at.
 *
 * Each has its own. One whose time goes into long hypercalls executes next to nothing in a millisecond; were that taken
 * for the processor's speed, the others would run in pieces of a few thousand instructions, and lose a third of their
 * time to what lies between two pieces. And pieces that are too short to be measured count together: from them alone
 * it has to be found out that they are too short.
 */

/** Before anything is known: what an interpreter does. Instructions a nanosecond. */
const FIRST = 0.05;
/** A measurement is of so many ns at least. */
const LEAST = 62_500;
/** What a new measurement counts for. */
const WEIGHT = 1 / 4;

export class Pace {
  /** Instructions a nanosecond. */
  rate = FIRST;
  private instructions = 0;
  private time = 0;

  /** It executed so many instructions in so many ns. */
  ran(instructions: number, time: number): void {
    this.instructions += instructions;
    this.time += time;
    if (this.time < LEAST) return;
    this.rate += (this.instructions / this.time - this.rate) * WEIGHT;
    this.instructions = 0;
    this.time = 0;
  }
}
