/** Errors of the toolstack's interface: they cross the daemon's socket, and are the same on both sides. */
import type { ErrorCode } from './names.ts';

/** Something could not be done; the message is one line for people. */
export class ToolstackError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}
