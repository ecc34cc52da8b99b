/** Constants of WebAssembly's binary format, version 1. */

/** "\0asm", and the version. */
export const PREAMBLE: readonly number[] = [0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00];

/** Of each section: its number. They come in the order of these, custom ones anywhere. */
export const SECTION = {
  custom: 0,
  type: 1,
  import: 2,
  function: 3,
  table: 4,
  export: 7,
  element: 9,
  code: 10,
} as const;

/** What an export or import is: a function. */
export const EXTERNAL_FUNCTION = 0x00;

/** Custom section of the proposal "branch hinting", in front of the code; ignored where it is not known. */
export const BRANCH_HINTS = 'metadata.code.branch_hint';
