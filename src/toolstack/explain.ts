/** What an error says to a user. It knows them all; who only has one to report needs no more than failure.ts. */

import { DiskError } from '../dom0/block/source.ts';
import { BuildError } from '../dom0/builder/error.ts';
import { OutOfFrames } from '../machine/frames.ts';
import { PcpuError } from '../machine/pcpu.ts';
import { ShareError } from './devices/share-spec.ts';
import { Failure } from './failure.ts';
import { ImageError } from './images/index.ts';
import { NetError } from './net/net-service.ts';
import { UsageError } from './options.ts';

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
