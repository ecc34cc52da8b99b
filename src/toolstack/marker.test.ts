import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MarkerFilter } from './marker.ts';

function run(chunks: readonly string[]): { text: string; messages: string[] } {
  const messages: string[] = [];
  const filter = new MarkerFilter((message) => messages.push(message));
  const bytes = chunks.map((chunk) => filter.filter(new TextEncoder().encode(chunk)));
  bytes.push(filter.flush());
  return { text: bytes.map((part) => new TextDecoder().decode(part)).join(''), messages };
}

const ready = '\x1b]xenolith;ready\x07';

describe('the marker filter', () => {
  it('takes messages out', () => {
    expect(run([`a${ready}b\x1b]xenolith;exit=3\x07\n`])).toEqual({
      text: 'ab\n',
      messages: ['ready', 'exit=3'],
    });
  });

  it('passes what only looks alike', () => {
    const text = `\x1b[1m\x1b]0;title\x07\x1b\x1b]xeno\x1b]xenolith;${'x'.repeat(100)}\x07`;
    expect(run([text])).toEqual({ text, messages: [] });
    expect(run(['\x1b]xenolith;rea'])).toEqual({ text: '\x1b]xenolith;rea', messages: [] });
  });

  it('does the same however the output is cut', () => {
    const piece = fc.constantFrom(
      'text',
      '\x1b',
      '\x1b]',
      '\x1b]xenolith;',
      'exit=1',
      '\x07',
      ready,
      '\n',
      'x'.repeat(70),
    );
    fc.assert(
      fc.property(fc.array(piece), fc.array(fc.nat(20)), (pieces, cuts) => {
        const whole = pieces.join('');
        const chunks: string[] = [];
        let at = 0;
        for (const cut of cuts) {
          chunks.push(whole.slice(at, at + cut));
          at += cut;
        }
        chunks.push(whole.slice(at));
        expect(run(chunks)).toEqual(run([whole]));
      }),
    );
  });
});
