/**
 * Options as getopt_long(3) has them, which is how xl takes them: letters together behind one dash, values with them
 * or in the next word, long names, options and operands in any order, `--` before the last of the operands.
 */

/** An option that the command does not have, or one without its value. */
export class OptionError extends Error {}

export interface Parsed {
  /** The options, in order: letter, and value if it takes one. */
  readonly options: readonly (readonly [letter: string, value: string])[];
  readonly operands: readonly string[];
}

/**
 * @param short letters, each with a colon behind it if it takes a value
 * @param long long names, and the letters that they stand for
 * @throws OptionError
 */
export function getopt(
  args: readonly string[],
  short: string,
  long: Readonly<Record<string, string>> = {},
): Parsed {
  const options: [string, string][] = [];
  const operands: string[] = [];
  const takesValue = (letter: string) => short[short.indexOf(letter) + 1] === ':';
  const rest = [...args];
  const valueOf = (name: string) => {
    const value = rest.shift();
    if (value === undefined) throw new OptionError(`option \`${name}' needs a value.`);
    return value;
  };
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
    if (word === '--') {
      operands.push(...rest);
      break;
    }
    if (word.startsWith('--')) {
      const [, name, given] = /^--([^=]*)(?:=(.*))?$/s.exec(word)!;
      const letter = longLetter(name!, long);
      if (!letter) throw new OptionError(`option \`--${name}' not supported.`);
      if (takesValue(letter)) options.push([letter, given ?? valueOf(`--${name}`)]);
      else if (given !== undefined) throw new OptionError(`option \`--${name}' takes no value.`);
      else options.push([letter, '']);
      continue;
    }
    if (!word.startsWith('-') || word === '-') {
      operands.push(word);
      continue;
    }
    for (let at = 1; at < word.length; at++) {
      const letter = word[at]!;
      if (letter === ':' || !short.includes(letter))
        throw new OptionError(`option \`${letter}' not supported.`);
      if (!takesValue(letter)) {
        options.push([letter, '']);
        continue;
      }
      options.push([letter, at + 1 < word.length ? word.slice(at + 1) : valueOf(letter)]);
      break;
    }
  }
  return { options, operands };
}

/** A long name may be cut short as long as it is clear which one is meant. */
function longLetter(name: string, long: Readonly<Record<string, string>>): string | undefined {
  if (Object.hasOwn(long, name)) return long[name];
  const meant = Object.keys(long).filter((each) => name !== '' && each.startsWith(name));
  return meant.length === 1 ? long[meant[0]!] : undefined;
}
