/** public/io/console.h and the console_io part of public/xen.h. Offsets and sizes in bytes. */

/** Commands of console_io (CONSOLEIO_*). */
export const CONSOLEIO = { write: 0, read: 1 } as const;

/**
 * struct xencons_interface. Input runs to the guest, output from it. Indices are free-running u32; an index's place
 * in its ring is the index modulo the ring's size.
 */
export const XENCONS_INTERFACE = {
  in: 0,
  inSize: 1024,
  out: 1024,
  outSize: 2048,
  in_cons: 3072,
  in_prod: 3076,
  out_cons: 3080,
  out_prod: 3084,
  size: 3088,
} as const;
