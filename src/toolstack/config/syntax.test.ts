import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ConfigError } from './error.ts';
import { numberOf, parseSettings, type Value } from './syntax.ts';

type Plain = string | number | Plain[];

function plain(value: Value): Plain {
  if (value.kind === 'list') return value.items.map(plain);
  return value.kind === 'number' ? numberOf(value)! : value.text;
}

function read(text: string): Record<string, Plain> {
  return Object.fromEntries([...parseSettings(text, 'x.cfg')].map(([key, value]) => [key, plain(value)]));
}

describe('a configuration', () => {
  it.each<[string, Record<string, Plain>]>([
    ['', {}],
    ['# only a comment', {}],
    ['name="a"', { name: 'a' }],
    ["name = 'it\\'s'\r\n", { name: "it's" }],
    ['a=1;b=2; ;c=3', { a: 1, b: 2, c: 3 }],
    ['a=010\nb=0x1F\nc=0\nd="12"', { a: 8, b: 31, c: 0, d: '12' }],
    ['s="a\\tb\\x41\\101\\\\n"', { s: 'a\tbAA\\n' }],
    ['s="#;[]"  # not part of it', { s: '#;[]' }],
    ['l=[]', { l: [] }],
    ['l=[\n  "a", # first\n\n  [1, 2],\n  [ ],\n]\nm=1', { l: ['a', [1, 2], []], m: 1 }],
    ['a=1\na=2', { a: 2 }],
    ['l=["a"]\nl+=["b"]\ns="x"\ns += "y"', { l: ['a', 'b'], s: 'xy' }],
    ['new += ["a"]', { new: ['a'] }],
    ['a = \\\n 1', { a: 1 }],
    ['a=1 # no newline at the end', { a: 1 }],
  ])('%j', (text, settings) => {
    expect(read(text)).toEqual(settings);
  });

  it.each([
    ['name', 'x.cfg:1: name: expected "=" or "+=", but the line ends'],
    ['\n\nname="a', 'x.cfg:3: name: a string without its closing "'],
    ['a=1 b=2', 'x.cfg:1: a: expected the end of the line, but here is "b"'],
    ['a=', 'x.cfg:1: a: expected a value'],
    ['a=none', 'x.cfg:1: a: expected a value'],
    ['memory=12q', 'x.cfg:1: memory: not a number: 12q'],
    ['memory=08', 'x.cfg:1: memory: not a number: 08'],
    ['a=-1', 'x.cfg:1: a: expected a value'],
    ['l=["a"\n"b"]', 'x.cfg:2: l: expected "," or "]", but here is "\\"b\\"'],
    ['# c\nl=["a",\n\n', 'x.cfg:2: l: a list without its closing ]'],
    ['Name="a"', 'x.cfg:1: expected a key, but here is "Name"'],
    ['="a"', 'x.cfg:1: expected a key'],
    ['s="\\q"', 'x.cfg:1: s: unknown escape \\q'],
    ['s="\\777"', 'x.cfg:1: s: unknown escape \\777'],
    ['a=1\na+=["b"]', 'x.cfg:2: a: a list cannot be added to a number'],
    [`a=${'['.repeat(40)}`, 'x.cfg:1: a: lists nested too deeply'],
    ['a \\\n b', 'x.cfg:2: a: expected'],
    [`#${'x'.repeat(1 << 20)}`, 'x.cfg:1: too long'],
  ])('is refused with its place: %j', (text, message) => {
    expect(() => read(text)).toThrow(ConfigError);
    expect(() => read(text)).toThrow(message);
  });

  it('of the command line goes over that of the file', () => {
    const settings = parseSettings('name="a"\ndisk=["x"]', 'x.cfg');
    parseSettings('name="b"; disk+=["y"]', '<command line>', settings);
    expect(plain(settings.get('name')!)).toBe('b');
    expect(plain(settings.get('disk')!)).toEqual(['x', 'y']);
    expect(settings.get('name')).toMatchObject({ source: '<command line>', line: 1 });
  });

  it('gives every string back that is written with escapes', () => {
    const written = (text: string, quote: string) =>
      quote + text.replaceAll(/[\\\n'"]/g, (it) => (it === '\n' ? '\\n' : `\\${it}`)) + quote;
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), fc.constantFrom('"', "'"), (text, quote) => {
        expect(read(`s=${written(text, quote)}`)).toEqual({ s: text });
      }),
    );
  });

  it('is read or refused, whatever it is', () => {
    const piece = fc.constantFrom(
      ...['a', 'b1', '=', '+=', '"x"', "'", '"', '[', ']', ',', ';', '\n', '#', ' ', '0x', '7'],
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 40 }), (pieces) => {
        try {
          parseSettings(pieces.join(''), 'x.cfg');
        } catch (error) {
          expect(error).toBeInstanceOf(ConfigError);
          expect((error as Error).message).toMatch(/^x\.cfg:\d+: /);
        }
      }),
      { numRuns: 2000 },
    );
  });
});
