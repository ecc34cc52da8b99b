/**
 * What is wrong with a kernel, a ramdisk or a memory size that a user gave. The message is one line, without a
 * full stop, fit to be shown as it is.
 */
export class BuildError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'BuildError';
  }
}

/** A number of bytes for a message: in MiB, rounded up. */
export function mebibytes(bytes: number): string {
  return `${Math.ceil(bytes / 1048576)} MiB`;
}
