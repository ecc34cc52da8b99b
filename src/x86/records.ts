/**
 * A decoded instruction as the interpreter executes it: 32 bytes.
 *
 * Records of straight-line code follow each other in memory; the code map of a page (one u32 for each byte offset)
 * leads from an instruction's place to its record. Operand fields hold byte offsets into the CPU's state, so that
 * an operand is fetched without asking which register it is; what an address lacks (base, index, segment) is the
 * zero slot.
 */
export const RECORD = {
  /** u16: number of the handler: a form's index, or one of GLUE. */
  op: 0,
  /** u16: offset of the instruction in its page. */
  offset: 2,
  /** u16: slot of the ModRM.reg (or opcode) register. */
  reg: 4,
  /** u16: slot of the ModRM.rm register, or of the base register. */
  rm: 6,
  /** u16 slots. */
  index: 8,
  segment: 10,
  /** u8: log2 of the index's scale. */
  scale: 12,
  /** u8: length of the instruction in bytes. */
  length: 13,
  /** u16: bit 0: address-size prefix. */
  flags: 14,
  /** i32: displacement; RIP-relative ones count from the start of the instruction's page. */
  displacement: 16,
  /** u32: record of a direct branch's target, once it is known (only within the page). */
  link: 20,
  /** i64: immediate; for direct branches the target's offset from the start of the page. */
  immediate: 24,
  size: 32,
} as const;

/** Of GLUE.region, where other records have operands. */
export const REGION_RECORD = { arrivals: RECORD.reg, wide: RECORD.rm } as const;

export const RECORD_ADDRESS32 = 1;

/** Handlers that are no instructions; the forms follow. */
export const GLUE = {
  /** Look the instruction at this place up again: its page was written, or a run ends here. */
  relookup: 0,
  /** The single step is over. */
  stop: 1,
  /** Go on at the linked record. */
  link: 2,
  /** Compute an address ahead of its instruction (32-bit address size; 64-bit moffs) into CPU.ea. */
  address: 3,
  /** The next record is an instruction that reaches into the next page: check that this page is what it was. */
  straddle: 4,
  /** No definition covers these bytes, or they are no instruction: #UD (or #GP for too long ones, in immediate). */
  undefined: 5,
  /**
   * A translated region begins (or goes on) here: table slot in link, number of the entry and address of the numbers
   * of its frames in the immediate's halves, distance from the region's first page in the displacement.
   */
  region: 6,
  count: 7,
} as const;
