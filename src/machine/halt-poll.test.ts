import { expect, it } from 'vitest';
import { HaltPoll } from './halt-poll.ts';

/** Sleeps for some times, one after the other, ms. */
function sleeping(...times: number[]): HaltPoll {
  const poll = new HaltPoll();
  let now = 1000;
  for (const time of times) {
    poll.slept(now);
    now += time;
    poll.woke(now);
  }
  return poll;
}

it('does not look where nothing has come soon', () => {
  expect(new HaltPoll().milliseconds).toBe(0);
  expect(sleeping(5, 100, 1).milliseconds).toBe(0);
});

it('looks for longer while sleeps are short, up to a limit', () => {
  expect(sleeping(0.1).milliseconds).toBeGreaterThan(0);
  const few = sleeping(0.1, 0.1).milliseconds;
  const many = sleeping(...new Array<number>(50).fill(0.1)).milliseconds;
  expect(many).toBeGreaterThan(few);
  expect(many).toBeLessThan(1);
});

it('gives that up where sleeps are long', () => {
  const short = new Array<number>(50).fill(0.1);
  const long = new Array<number>(50).fill(4);
  expect(sleeping(...short, 4).milliseconds).toBeLessThan(sleeping(...short).milliseconds);
  expect(sleeping(...short, ...long).milliseconds).toBe(0);
});
