/**
 * The syntax of xl.cfg(5): `key = value`, one after the other, on lines of their own or with `;` between them.
 *
 * A value is a string in single or double quotes with C's escapes, a number (decimal, octal with a leading 0,
 * hexadecimal with 0x), or a list of values in brackets, over several lines if it likes. `key += value` adds to what
 * a key has: a list to a list, a string to a string. A key that is set again has the newer value. What follows a `#`
 * is a comment; a backslash at the end of a line joins it with the next.
 */
import { configError, type Place } from './error.ts';

export type Value = Scalar | List;

/** A number is kept as it was written, too: where a string is wanted, it is one. */
export interface Scalar extends Place {
  readonly kind: 'string' | 'number';
  readonly text: string;
}

export interface List extends Place {
  readonly kind: 'list';
  readonly items: readonly Value[];
}

/** The values that a configuration sets, by key. */
export type Settings = Map<string, Value>;

/** A configuration longer than this is none. */
const LONGEST = 1 << 20;
/** Lists in lists. */
const DEEPEST = 16;

const KEY = /[a-z][a-z0-9_]*/y;
const NUMBER = /[0-9][0-9a-zA-Z_.]*/y;
const STRING = /"(?:[^"\\\n]|\\[^\n])*"|'(?:[^'\\\n]|\\[^\n])*'/y;
/** Anything that a message about it may quote. */
const WORD = /[^\s,;=[\]#"']+|["'].{0,20}|./y;
const BLANK = /(?:[ \t\r]|\\\r?\n)+/y;
const COMMENT = /#[^\n]*/y;

const ESCAPES: Readonly<Record<string, string>> = {
  ...{ a: '\x07', b: '\b', f: '\f', n: '\n', r: '\r', t: '\t', v: '\v' },
  ...{ '\\': '\\', "'": "'", '"': '"' },
};

/**
 * Reads a configuration.
 * @param source names it in messages
 * @param settings what is set already: newer values replace it, `+=` adds to it
 * @throws ConfigError
 */
export function parseSettings(text: string, source: string, settings: Settings = new Map()): Settings {
  if (text.length > LONGEST) {
    throw configError({ source, line: 1 }, null, 'too long for a configuration');
  }
  new Parser(text, source, settings).file();
  return settings;
}

/** The number that a scalar is, or null. A string of digits is one, as in xl. */
export function numberOf(scalar: Scalar): number | null {
  const text = scalar.text.trim();
  if (/^0[0-7]+$/.test(text)) return Number.parseInt(text, 8);
  return /^(?:0|[1-9]\d*|0x[0-9a-fA-F]+)$/.test(text) ? Number(text) : null;
}

class Parser {
  private readonly text: string;
  private readonly source: string;
  private readonly settings: Settings;
  private position = 0;
  private line = 1;
  /** What is being set, for messages. */
  private key: string | null = null;

  constructor(text: string, source: string, settings: Settings) {
    this.text = text;
    this.source = source;
    this.settings = settings;
  }

  file(): void {
    for (;;) {
      this.key = null;
      this.skip();
      if (this.atEnd) return;
      if (this.accept('\n') || this.accept(';')) continue;
      this.assignment();
      this.skip();
      if (this.atEnd || this.accept('\n') || this.accept(';')) continue;
      throw this.unexpected('the end of the line');
    }
  }

  private assignment(): void {
    const key = this.match(KEY);
    if (key === null) throw this.unexpected('a key');
    this.key = key;
    this.skip();
    const adds = this.accept('+');
    if (!this.accept('=')) throw this.unexpected(adds ? '"="' : '"=" or "+="');
    this.skip();
    const value = this.value(0);
    const old = adds ? this.settings.get(key) : undefined;
    this.settings.set(key, old ? this.sum(old, value) : value);
  }

  private sum(old: Value, value: Value): Value {
    if (old.kind === 'list' && value.kind === 'list')
      return { ...value, items: [...old.items, ...value.items] };
    if (old.kind === 'string' && value.kind === 'string') return { ...value, text: old.text + value.text };
    throw configError(value, this.key, `a ${value.kind} cannot be added to a ${old.kind}`);
  }

  private value(depth: number): Value {
    const { place } = this;
    if (this.accept('[')) return this.list(place, depth);
    const number = this.match(NUMBER);
    if (number !== null) {
      const scalar: Scalar = { ...place, kind: 'number', text: number };
      if (numberOf(scalar) === null) throw this.error(`not a number: ${number}`);
      return scalar;
    }
    const string = this.match(STRING);
    if (string !== null) return { ...place, kind: 'string', text: this.unescaped(string.slice(1, -1)) };
    const quote = this.text[this.position];
    if (quote === '"' || quote === "'") throw this.error(`a string without its closing ${quote}`);
    throw this.unexpected('a value (a string in quotes, a number or a list)');
  }

  private list(place: Place, depth: number): List {
    if (depth === DEEPEST) throw this.error('lists nested too deeply');
    const items: Value[] = [];
    for (;;) {
      this.skipLines();
      if (this.accept(']')) return { ...place, kind: 'list', items };
      if (this.atEnd) throw configError(place, this.key, 'a list without its closing ]');
      items.push(this.value(depth + 1));
      this.skipLines();
      if (this.accept(',')) continue;
      if (this.accept(']')) return { ...place, kind: 'list', items };
      if (this.atEnd) throw configError(place, this.key, 'a list without its closing ]');
      throw this.unexpected('"," or "]"');
    }
  }

  private unescaped(text: string): string {
    return text.replaceAll(/\\(x[0-9a-fA-F]{1,2}|[0-7]{1,3}|.)/g, (_, code: string) => {
      const known = ESCAPES[code];
      if (known !== undefined) return known;
      const value = code.startsWith('x') ? code.slice(1) : code;
      const number = Number.parseInt(value, code.startsWith('x') ? 16 : 8);
      if (Number.isNaN(number) || number > 255) throw this.error(`unknown escape \\${code}`);
      return String.fromCharCode(number);
    });
  }

  private get atEnd(): boolean {
    return this.position >= this.text.length;
  }

  private get place(): Place {
    return { source: this.source, line: this.line };
  }

  private accept(character: string): boolean {
    if (this.text[this.position] !== character) return false;
    this.position++;
    if (character === '\n') this.line++;
    return true;
  }

  private match(pattern: RegExp): string | null {
    pattern.lastIndex = this.position;
    const found = pattern.exec(this.text)?.[0] ?? null;
    if (found !== null) this.position += found.length;
    return found;
  }

  /** Blanks and comments. */
  private skip(): void {
    for (;;) {
      const blank = this.match(BLANK);
      this.line += blank?.split('\n').slice(1).length ?? 0;
      if (blank === null && this.match(COMMENT) === null) return;
    }
  }

  private skipLines(): void {
    do this.skip();
    while (this.accept('\n'));
  }

  private unexpected(wanted: string): Error {
    const { place } = this;
    const found = this.text[this.position] === '\n' ? null : this.match(WORD);
    const what = found === null ? 'the line ends' : `here is ${JSON.stringify(found)}`;
    return configError(place, this.key, `expected ${wanted}, but ${what}`);
  }

  private error(what: string): Error {
    return configError(this.place, this.key, what);
  }
}
