/** What is known of the soak's loads and of the host's memory while they run. */
import { mean } from './report.ts';

export const LOADS = ['files', 'code', 'storm', 'signals'] as const;

/** After how many seconds without a word a load stands still. */
const SILENCE = 300;

/** How much more memory the last third of the time may use than the second, as a factor. */
const FLAT = 1.03;

/** Is memory flat? Compares the means of the second and the last third of samples taken at equal distances. */
export function flatness(samples: readonly number[]): { flat: boolean; middle: number; last: number } {
  const third = Math.max(1, Math.floor(samples.length / 3));
  const middle = mean(samples.slice(-2 * third, -third));
  const last = mean(samples.slice(-third));
  return { flat: last <= middle * FLAT, middle, last };
}

/** What the loads said: rounds so far, and failures. */
export class Progress {
  private readonly loads: readonly string[];
  private readonly rounds = new Map<string, number>();
  private readonly heard = new Map<string, number>();

  constructor(loads: readonly string[]) {
    this.loads = loads;
  }

  /**
   * Takes lines of the console.
   * @param now seconds since the loads were started
   * @throws Error if a load tells of a failure, or is not heard any more
   */
  take(lines: string, now: number): void {
    for (const [, name, rounds, failure] of lines.matchAll(/^soak: (\w+) (?:(\d+)|failed: (.*?))\r?$/gm)) {
      if (failure !== undefined) throw new Error(`${name}: ${failure}`);
      this.rounds.set(name!, Number(rounds));
      this.heard.set(name!, now);
    }
    const silent = this.loads.find((name) => now - (this.heard.get(name) ?? 0) > SILENCE);
    if (silent) throw new Error(`${silent}: not a word for ${SILENCE} s`);
  }

  /** Rounds of each load, in the order in which they were given. */
  get counts(): number[] {
    return this.loads.map((name) => this.rounds.get(name) ?? 0);
  }
}
