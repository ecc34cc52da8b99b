/** How the program ends: exit statuses, and errors that a user reads. */

import { DiskError } from '../dom0/block/source.ts';
import { BuildError } from '../dom0/builder/error.ts';
import { OutOfFrames } from '../machine/frames.ts';
import { PcpuError } from '../machine/pcpu.ts';
import { ShareError } from './devices/share-spec.ts';
import { ImageError } from './images/index.ts';
import { NetError } from './net/net-service.ts';
import { UsageError } from './options.ts';

/** Exit statuses (docs/usage.md). */
export const STATUS = {
  poweroff: 0,
  failure: 1,
  usage: 2,
  /** EX_SOFTWARE of sysexits.h: no shell uses it for anything of its own. */
  crash: 70,
  signal: 128,
} as const;

/** Something that a user can understand and do something about; the message is one line. */
export class Failure extends Error {}

const EXPECTED = [
  ...[Failure, UsageError, ImageError, BuildError, DiskError, ShareError, NetError],
  ...[OutOfFrames, PcpuError],
];

/** One line for an error: what it says if it is one of those that we foresee, else that it is a bug. */
export function explain(error: unknown): string {
  if (EXPECTED.some((kind) => error instanceof kind)) return oneLine((error as Error).message);
  return `internal error: ${oneLine(String(error))}`;
}

function oneLine(text: string): string {
  return text.trim().replaceAll(/\s*\n\s*/g, '; ');
}
