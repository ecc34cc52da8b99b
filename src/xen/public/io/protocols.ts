/** public/io/protocols.h: the ABI of a ring, as a front end names it in its node "protocol". */
export const XEN_IO_PROTO_ABI_X86_64 = 'x86_64-abi';
/** Guests here are 64-bit: what a front end means that names none. */
export const XEN_IO_PROTO_ABI_NATIVE = XEN_IO_PROTO_ABI_X86_64;
