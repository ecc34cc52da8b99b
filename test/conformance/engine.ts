/**
 * What runs test cases: the host's CPU, the interpreter, the translator.
 */
import type { Batch, Results } from './wire.ts';

export interface Engine {
  /** What reports call it: 'native', 'interpreter'. */
  readonly name: string;
  /** Runs every case of the batch; results in the same order. */
  run(batch: Batch): Results;
}
