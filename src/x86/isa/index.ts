/** All instructions. */
import { arithmetic } from './arithmetic.ts';
import { control } from './control.ts';
import { data } from './data.ts';
import type { Definition } from './definition.ts';
import { shiftAndBit } from './shift.ts';
import { string } from './string.ts';
import { system } from './system.ts';

export const definitions: readonly Definition[] = [
  ...arithmetic,
  ...shiftAndBit,
  ...data,
  ...control,
  ...string,
  ...system,
];
