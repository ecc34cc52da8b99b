/** What a command of xl works with. */

import type { DomainInfo } from '../api/model.ts';
import type { RemoteToolstack } from '../api/remote.ts';
import { findDomain } from '../api/toolstack.ts';
import type { Place } from '../daemon/place.ts';

/** A command ends with a message on standard error and a status; the message may have several lines, or none. */
export class XlError extends Error {
  readonly status: number;

  constructor(message: string, status = 1) {
    super(message);
    this.status = status;
  }
}

export interface XlContext {
  /** The daemon; it is started if none runs. */
  toolstack(): Promise<RemoteToolstack>;
  readonly place: Place;
  /** Standard output and error. */
  out(text: string): void;
  err(text: string): void;
  readonly cwd: string;
  /** Nothing is to be done but to say what would be (xl -N). */
  readonly dryRun: boolean;
  readonly verbose: boolean;
}

/** Arguments of a command: how often each option was given, their last values, and the operands. */
export class Arguments {
  readonly operands: readonly string[];
  private readonly options: readonly (readonly [letter: string, value: string])[];

  constructor(options: Arguments['options'], operands: readonly string[]) {
    this.options = options;
    this.operands = operands;
  }

  count(letter: string): number {
    return this.options.filter(([each]) => each === letter).length;
  }

  has(letter: string): boolean {
    return this.count(letter) > 0;
  }

  /** The value of an option's last use. */
  value(letter: string): string | undefined {
    return this.options.findLast(([each]) => each === letter)?.[1];
  }
}

/** A command's own code. */
export type Run = (context: XlContext, args: Arguments) => Promise<number | undefined>;

/** The domain that an operand means. @throws XlError as xl has it */
export async function needDomain(context: XlContext, qualifier: string): Promise<DomainInfo> {
  const found = await findDomain(await context.toolstack(), qualifier);
  if (found) return found;
  throw /^\d+$/.test(qualifier)
    ? new XlError(`Domain ${qualifier} does not exist.`)
    : unknownDomain(qualifier);
}

export function unknownDomain(name: string): XlError {
  return new XlError(`${name} is an invalid domain identifier (rc=-6)`);
}

/** A whole number that an operand is. @throws XlError */
export function needNumber(text: string, what: string): number {
  if (!/^\d{1,15}$/.test(text)) throw new XlError(`Error: Invalid argument ${text} as ${what}.`);
  return Number(text);
}
