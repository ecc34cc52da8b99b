/**
 * The emergency console: the hypercall console_io, and what each domain printed with it (`earlyprintk=xen`, and
 * the last words of a kernel that has no console driver yet).
 */
import type { Domain } from './domain.ts';
import { type Arguments, RESTART } from './hypercall.ts';
import { CONSOLEIO } from './public/console.ts';
import { ERRNO } from './public/errno.ts';
import type { Vcpu } from './vcpu.ts';

/** How much of it is kept for each domain, in bytes. */
export const DEFAULT_LOG_BYTES = 64 * 1024;

/** Bytes of one call that are taken before other work of the machine may run. */
const CHUNK = 4096;
const COUNT_MAX = 0x7fffffff;

/** The last bytes that a domain printed: a ring, so that a domain that prints without end costs no memory. */
export class ConsoleLog {
  readonly domain: Domain;
  /** Called with every piece of output as it comes. The bytes are the callee's. */
  onWrite: (bytes: Uint8Array) => void = () => {};
  private readonly ring: Uint8Array;
  /** Bytes ever written. */
  private total = 0;

  /** @param maxBytes how many of the last bytes are kept */
  constructor(domain: Domain, maxBytes = DEFAULT_LOG_BYTES) {
    this.domain = domain;
    this.ring = new Uint8Array(maxBytes);
  }

  write(bytes: Uint8Array): void {
    const kept = bytes.subarray(Math.max(0, bytes.length - this.ring.length));
    const at = (this.total + bytes.length - kept.length) % this.ring.length;
    const first = Math.min(kept.length, this.ring.length - at);
    this.ring.set(kept.subarray(0, first), at);
    this.ring.set(kept.subarray(first), 0);
    this.total += bytes.length;
    this.onWrite(bytes);
  }

  /** Printed where the domain was before. */
  restore(bytes: Uint8Array): void {
    const { onWrite } = this;
    this.onWrite = () => {};
    this.write(bytes);
    this.onWrite = onWrite;
  }

  /** What is kept, oldest first. */
  get bytes(): Uint8Array {
    const size = this.ring.length;
    if (this.total <= size) return this.ring.slice(0, this.total);
    const at = this.total % size;
    const bytes = new Uint8Array(size);
    bytes.set(this.ring.subarray(at), 0);
    bytes.set(this.ring.subarray(0, at), size - at);
    return bytes;
  }
}

/** console_io(cmd, count, buffer). Nothing is ever typed into the emergency console of a guest. */
export function consoleIo(vcpu: Vcpu, args: Arguments): number {
  const count = args.low(1);
  const buffer = args.number(2);
  switch (args.low(0)) {
    case CONSOLEIO.write: {
      if (count > COUNT_MAX) return -ERRNO.EINVAL;
      const length = Math.min(count, CHUNK);
      vcpu.domain.log.write(vcpu.guest.copyFrom(buffer, length));
      if (length === count) return 0;
      args.set(1, count - length);
      args.set(2, buffer + length);
      return RESTART;
    }
    case CONSOLEIO.read:
      return 0;
    default:
      return -ERRNO.ENOSYS;
  }
}
