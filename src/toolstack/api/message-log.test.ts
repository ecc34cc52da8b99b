import { describe, expect, it } from 'vitest';
import { MessageLog } from './message-log.ts';

describe('the message log', () => {
  it('puts lines together, by who writes', () => {
    const log = new MessageLog();
    log.text('d1', 'one\ntw');
    log.text('d2', 'other\n');
    log.text('d1', 'o\nthree');
    expect(log.read()).toBe('(d1) one\n(d2) other\n(d1) two\n');
    log.close('d1');
    log.close('d1');
    expect(log.read()).toMatch(/\(d1\) three\n$/);
  });

  it('has nothing in it that a terminal would obey', () => {
    const log = new MessageLog();
    log.text('d1', 'a\x1b[2J\tb\x9b\r\n');
    expect(log.read()).toBe('(d1) a[2J\tb\n');
  });

  it('keeps the newest lines only, and no line for ever', () => {
    const log = new MessageLog();
    for (let index = 0; index < 10_000; index++) log.line('XEN', `line ${index}`);
    log.text('d1', 'x'.repeat(100_000));
    expect(log.read().length).toBeLessThanOrEqual(64 * 1024);
    for (let index = 0; index < 10_000; index++) log.text('d1', 'x'.repeat(100));
    expect(log.read().length).toBeLessThanOrEqual(64 * 1024);
    log.clear();
    expect(log.read()).toBe('');
  });
});
