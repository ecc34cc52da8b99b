/** All instructions. */
import { arithmetic } from './arithmetic.ts';
import { control } from './control.ts';
import { data } from './data.ts';
import type { Definition } from './definition.ts';
import { mmx } from './mmx.ts';
import { shiftAndBit } from './shift.ts';
import { sseConvert } from './sse-convert.ts';
import { sseFloat } from './sse-float.ts';
import { sseInteger } from './sse-integer.ts';
import { sseMove } from './sse-move.ts';
import { sseShuffle } from './sse-shuffle.ts';
import { sseString } from './sse-string.ts';
import { string } from './string.ts';
import { system } from './system.ts';
import { x87 } from './x87.ts';

export const definitions: readonly Definition[] = [
  ...arithmetic,
  ...shiftAndBit,
  ...data,
  ...control,
  ...string,
  ...system,
  ...mmx,
  ...sseMove,
  ...sseInteger,
  ...sseShuffle,
  ...sseString,
  ...sseFloat,
  ...sseConvert,
  ...x87,
];
