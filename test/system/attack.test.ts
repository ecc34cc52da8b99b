/** A guest kernel that does all the harm that it can, for some seconds: its neighbours go on as if it only computed. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AttackBed, harm, loss, lostTime, type Observation } from '../../bench/attack.ts';

const SECONDS = 1.2;

let bed: AttackBed;
let before: Observation;

beforeAll(async () => {
  bed = await AttackBed.start();
  await bed.watch('spin', 0.5);
  before = await bed.watch('spin', SECONDS);
});

afterAll(() => bed?.end());

describe('a domain that attacks', () => {
  // The bench knows more kinds, each for as long as one likes: npm run bench -- attack --seconds 60
  it.each(['mixed', 'pins', 'any'])('takes nothing from its neighbours: %s', async (kind) => {
    const seen = await bed.watch(kind, SECONDS);
    const after = await bed.watch('spin', SECONDS / 2);
    expect(harm(seen)).toEqual([]);
    expect(lostTime(seen)).toBeLessThan(0.1);
    // What the host's other work takes from such short times is more than what an attack may.
    expect(loss(seen, before, after)).toBeLessThan(0.5);
    before = after;
  });
});
