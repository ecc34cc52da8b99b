/** public/io/xs_wire.h: the wire protocol of xenstore. Offsets and sizes in bytes. */

/** Message types (enum xsd_sockmsg_type). */
export const XS = {
  CONTROL: 0,
  DIRECTORY: 1,
  READ: 2,
  GET_PERMS: 3,
  WATCH: 4,
  UNWATCH: 5,
  TRANSACTION_START: 6,
  TRANSACTION_END: 7,
  INTRODUCE: 8,
  RELEASE: 9,
  GET_DOMAIN_PATH: 10,
  WRITE: 11,
  MKDIR: 12,
  RM: 13,
  SET_PERMS: 14,
  WATCH_EVENT: 15,
  ERROR: 16,
  IS_DOMAIN_INTRODUCED: 17,
  RESUME: 18,
  SET_TARGET: 19,
  RESET_WATCHES: 21,
  DIRECTORY_PART: 22,
} as const;

/** Errors travel by name (xsd_errors): only these names exist. */
export const XSD_ERRORS = [
  'EINVAL',
  'EACCES',
  'EEXIST',
  'EISDIR',
  'ENOENT',
  'ENOMEM',
  'ENOSPC',
  'EIO',
  'ENOTEMPTY',
  'ENOSYS',
  'EROFS',
  'EBUSY',
  'EAGAIN',
  'EISCONN',
  'E2BIG',
  'EPERM',
] as const;
export type XenstoreErrorName = (typeof XSD_ERRORS)[number];

/** struct xsd_sockmsg: four u32; `len` bytes follow. */
export const XSD_SOCKMSG = { type: 0, req_id: 4, tx_id: 8, len: 12, size: 16 } as const;

/** The largest payload of a message. A longer one breaks the protocol. */
export const XENSTORE_PAYLOAD_MAX = 4096;
/** The longest absolute and relative paths, in characters. */
export const XENSTORE_ABS_PATH_MAX = 3072;
export const XENSTORE_REL_PATH_MAX = 2048;

export const XENSTORE_RING_SIZE = 1024;

/** struct xenstore_domain_interface. Indices are free-running u32. */
export const XENSTORE_INTERFACE = {
  req: 0,
  rsp: XENSTORE_RING_SIZE,
  req_cons: 2048,
  req_prod: 2052,
  rsp_cons: 2056,
  rsp_prod: 2060,
  /** u32: XENSTORE_SERVER_FEATURE. */
  server_features: 2064,
  /** u32: XENSTORE_CONNECTION. */
  connection: 2068,
  /** u32: XENSTORE_ERROR. */
  error: 2072,
  size: 2076,
} as const;

export const XENSTORE_SERVER_FEATURE = { RECONNECTION: 1, ERROR: 2 } as const;
export const XENSTORE_CONNECTION = { CONNECTED: 0, RECONNECT: 1 } as const;
export const XENSTORE_ERROR = { NONE: 0, COMM: 1, RINGIDX: 2, PROTO: 3 } as const;
