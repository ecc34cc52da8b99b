/**
 * Initial states: registers, flags, memory and floating-point state for one instruction, random with a strong taste
 * for boundaries, and shaped so that the instruction gets somewhere (a stack pointer that points into memory, a
 * quotient that fits, a branch target that is code).
 */
import { operandBits } from '../../src/x86/isa/encoding.ts';
import { rmOperand } from '../../src/x86/isa/form.ts';
import { fpuState, plainFpuState, summarize } from './fpu-state.ts';
import type { Instruction } from './instruction.ts';
import type { Random } from './random.ts';
import { float32, float64, float80, integer, vector } from './values.ts';
import { type Batch, CASE, FX, PLACE } from './wire.ts';

const RAX = 0;
const RCX = 1;
const RDX = 2;
const RBX = 3;
const RSP = 4;
const RBP = 5;
const RSI = 6;
const RDI = 7;

const DATA_END = PLACE.dataBase + PLACE.dataSize;
const WRITABLE_END = PLACE.dataBase + PLACE.dataWritable;
const MIDDLE = PLACE.dataBase + 0x1000;
const TWO_64 = 1n << 64n;

/** An address for `size` bytes: mostly good, sometimes at every kind of edge. As a number below 2^32. */
export function target(random: Random, size: number): number {
  const kind = random.below(100);
  const inside = Math.max(size - 1, 1);
  if (kind < 45) return PLACE.dataBase + (random.below(PLACE.dataWritable - size) & ~15);
  if (kind < 75) return PLACE.dataBase + random.below(PLACE.dataWritable - size);
  if (kind < 82) return MIDDLE - random.between(1, inside);
  if (kind < 88) return WRITABLE_END + random.below(PLACE.dataSize - PLACE.dataWritable - size);
  if (kind < 91) return WRITABLE_END - random.between(1, inside);
  if (kind < 93) return WRITABLE_END - size;
  if (kind < 95) return DATA_END - random.between(1, inside);
  if (kind < 97) return PLACE.dataBase - random.between(1, inside);
  if (kind < 99) return random.pick([PLACE.dataBase - 0x800, DATA_END, DATA_END + 0x123, 0, 8]);
  return PLACE.codeBase + random.below(PLACE.codeSize - size);
}

/** The address of a memory operand. */
export function operandAddress(random: Random, bytes: number): number {
  // Images of the x87 state: not across pages of different kinds (see ANY_FAULT_ADDRESS).
  if (bytes >= 28) return target(random, 256) & ~(random.chance(0.9) ? 0x1ff : 0x1f7);
  const address = target(random, bytes);
  // 16-byte operands want alignment more often than chance gives it.
  return bytes >= 16 && random.chance(0.7) ? address & ~15 : address;
}

/** Where canonical addresses end and begin, and where addresses wrap. Operands accessed in parts are not put there. */
const EDGES = [1n << 47n, TWO_64 - (1n << 47n), 0n, 8n, 16n];

/** A place in the code region that is not the instruction itself. */
function codeAddress(random: Random, instruction: Instruction): bigint {
  if (random.chance(0.02)) return (random.pick(EDGES) - BigInt(random.below(3))) & (TWO_64 - 1n);
  const offset = random.below(PLACE.codeSize);
  const near = offset > instruction.offset - 16 && offset < instruction.offset + 32;
  return BigInt(PLACE.codeBase + (near ? (offset + 64) % PLACE.codeSize : offset));
}

function segmentBase(random: Random): bigint {
  const kind = random.below(4);
  if (kind === 0) return 0n;
  if (kind === 1) return BigInt(random.u32());
  if (kind === 2) return BigInt.asUintN(64, BigInt.asIntN(48, random.u64()));
  return BigInt(random.below(0x10000)) << 12n;
}

/** Builds one case in a batch. Write order matters: later shaping must not undo earlier (see `pinned`). */
class State {
  readonly random: Random;
  readonly batch: Batch;
  readonly instruction: Instruction;
  readonly regs: bigint[] = [];
  rflags = 0x202;
  fsBase: bigint;
  gsBase: bigint;
  /** Linear address of the ModRM memory operand as computed; -1n: none. */
  effective = -1n;
  private readonly pinned = new Set<number>();
  private readonly patches: [number, Uint8Array][] = [];

  constructor(random: Random, batch: Batch, instruction: Instruction) {
    this.random = random;
    this.batch = batch;
    this.instruction = instruction;
    for (let i = 0; i < 16; i++) this.regs.push(integer(random));
    const a = random.below(16);
    if (random.chance(0.15)) this.regs[a] = this.regs[random.below(16)]!;
    this.rflags |= random.u32() & 0xcd5;
    this.fsBase = segmentBase(random);
    this.gsBase = segmentBase(random);
  }

  get name(): string {
    return this.instruction.variant.form.definition.name;
  }

  /** Sets a register that addresses must leave alone. */
  pin(register: number, value: bigint): void {
    this.regs[register] = BigInt.asUintN(64, value);
    this.pinned.add(register);
  }

  /** Sets the low bits of a register only. */
  pinLow(register: number, bits: number, value: bigint): void {
    const mask = (1n << BigInt(bits)) - 1n;
    const upper = bits === 32 && this.random.chance(0.5) ? 0n : this.regs[register]! & ~mask;
    this.pin(register, upper | (value & mask));
  }

  /** The base of the segment override, or 0. */
  get segment(): bigint {
    const { segment } = this.instruction.choice;
    return segment === 'fs' ? this.fsBase : segment === 'gs' ? this.gsBase : 0n;
  }

  set segment(base: bigint) {
    if (this.instruction.choice.segment === 'fs') this.fsBase = base;
    else this.gsBase = base;
  }

  /** With 67 the part before the segment has 32 bits: the segment must lie close. */
  private nearSegment(): bigint {
    const { segment, address32 } = this.instruction.choice;
    if (segment === 'none') return 0n;
    if (address32 || this.instruction.choice.address.base < 0)
      this.segment = BigInt(this.random.below(0x10000000));
    return this.segment;
  }

  /** Points an implicit address register (rsi, rdi, rbx) at a linear address. */
  pointTo(register: number, linear: number, segmented: boolean): void {
    const segment = segmented ? this.nearSegment() : 0n;
    const offset = BigInt(linear) - segment;
    if (this.instruction.choice.address32) this.pinLow(register, 32, offset);
    else this.pin(register, offset);
  }

  /** Chooses the registers of the ModRM address so that it points at `linear`, as far as that can be done. */
  address(linear: bigint): void {
    const { address, address32, segment } = this.instruction.choice;
    const bits = address32 ? 32 : 64;
    const fixed = address.base < 0 && address.index < 0;
    // A fixed address was chosen with the instruction; a segment moves it.
    if (fixed && segment !== 'none') {
      if (this.random.chance(0.9)) this.segment = BigInt(this.random.below(64));
    } else if (segment !== 'none') this.nearSegment();
    const want = BigInt.asUintN(bits, linear - this.segment - BigInt(address.displacement));
    const set = (register: number, value: bigint): void => {
      const upper = address32 ? this.regs[register]! & ~0xffffffffn : 0n;
      this.regs[register] = upper | BigInt.asUintN(bits, value);
    };
    const { base, index } = address;
    const scale = BigInt(address.scale);
    if (!address.ripRelative && !fixed) {
      if (base >= 0 && base !== index && !this.pinned.has(base)) {
        const rest = index < 0 ? 0n : this.regs[index]! * scale;
        set(base, want - rest);
      } else if (index >= 0 && !this.pinned.has(index)) {
        const factor = base === index ? scale + 1n : scale;
        const rest = base < 0 || base === index ? 0n : this.regs[base]!;
        const open = BigInt.asIntN(bits, want - rest);
        // Not divisible: the address is a little lower, which is as good.
        set(index, open / factor);
      }
    }
    this.effective = this.computeAddress();
  }

  private computeAddress(): bigint {
    const { address, address32 } = this.instruction.choice;
    let sum = BigInt(address.displacement);
    if (address.ripRelative) sum += BigInt(PLACE.codeBase + this.instruction.offset);
    if (address.base >= 0) sum += this.regs[address.base]!;
    if (address.index >= 0) sum += this.regs[address.index]! * BigInt(address.scale);
    return BigInt.asUintN(64, BigInt.asUintN(address32 ? 32 : 64, sum) + this.segment);
  }

  /** Puts bytes into the data region; parts outside of it are dropped. */
  poke(linear: bigint | number, bytes: Uint8Array): void {
    const signed = typeof linear === 'number' ? linear : Number(BigInt.asIntN(64, linear));
    let offset = signed - PLACE.dataBase;
    let data = bytes;
    if (offset < 0) {
      data = data.subarray(Math.min(-offset, data.length));
      offset = 0;
    }
    if (offset >= PLACE.dataSize) return;
    data = data.subarray(0, PLACE.dataSize - offset);
    if (data.length > 0) this.patches.push([offset, data]);
  }

  pokeInteger(linear: bigint | number, bytes: number, value: bigint): void {
    const data = new Uint8Array(bytes);
    let rest = BigInt.asUintN(bytes * 8, value);
    for (let i = 0; i < bytes; i++) {
      data[i] = Number(rest & 0xffn);
      rest >>= 8n;
    }
    this.poke(linear, data);
  }

  /** Gives the operand that ModRM.rm names a value, in a register or in memory. */
  setRm(bits: number, value: bigint): void {
    const { form } = this.instruction.variant;
    if (form.memory) this.pokeInteger(this.effective, bits / 8, value);
    else {
      const { rm } = this.instruction.choice;
      if (bits === 8 && this.instruction.variant.bytes === 'legacy' && rm >= 4) {
        this.regs[rm - 4] = (this.regs[rm - 4]! & ~0xff00n) | ((value & 0xffn) << 8n);
      } else {
        const mask = (1n << BigInt(bits)) - 1n;
        this.regs[rm] = (this.regs[rm]! & ~mask) | (value & mask);
      }
    }
  }

  /** Bits of the ModRM.rm operand. */
  get rmBits(): number {
    const { form } = this.instruction.variant;
    const rm = rmOperand(form.operands);
    return rm === undefined ? form.size || 64 : operandBits(rm.size, form.size) || form.size || 64;
  }

  write(): void {
    const { batch, instruction } = this;
    const { view, at } = batch;
    const length = Math.min(instruction.bytes.length, PLACE.codeSize - instruction.offset);
    view.setUint32(at + CASE.codeOffset, instruction.offset, true);
    view.setUint32(at + CASE.codeLength, length, true);
    for (let i = 0; i < length; i++) view.setUint8(at + CASE.code + i, instruction.bytes[i]!);
    for (let i = 0; i < 16; i++) view.setBigUint64(at + CASE.regs + 8 * i, this.regs[i]!, true);
    view.setBigUint64(at + CASE.rflags, BigInt(this.rflags), true);
    view.setBigUint64(at + CASE.fsBase, this.fsBase, true);
    view.setBigUint64(at + CASE.gsBase, this.gsBase, true);
    for (const [offset, data] of this.patches) batch.patch(offset, data);
  }
}

/** Flags worth loading: everything but TF, which would end the case before its trap. */
const popFlags = (random: Random): bigint => integer(random) & ~0x100n;

/** Selectors: Linux' user code and data (processor.ts has the same descriptors), null, its kernel's, and none at all. */
function selector(random: Random): bigint {
  return random.pick([
    0n,
    1n,
    2n,
    3n,
    0x2bn,
    0x2bn,
    0x28n,
    0x2an,
    0x33n,
    0x10n,
    0x13n,
    0x18n,
    0x4n,
    0x7fff8n,
    0xfffcn,
  ]);
}

/** A stack pointer for an instruction that pushes or pops `bytes`. */
function stackPointer(random: Random): bigint {
  if (random.chance(0.6)) return BigInt(PLACE.dataBase + 0x200 + (random.below(0x1c00) & ~7));
  return BigInt(target(random, 8)) + (random.chance(0.5) ? 8n : 0n);
}

function divide(state: State): void {
  const { random } = state;
  if (random.chance(0.15)) return;
  const bits = BigInt(state.rmBits);
  const signed = state.name === 'IDIV';
  const mask = (1n << bits) - 1n;
  let divisor = integer(random) & mask;
  if (random.chance(0.3)) divisor >>= BigInt(random.below(Number(bits)));
  if (divisor === 0n) divisor = 1n;
  let quotient = integer(random) & mask;
  const remainder = random.u64() % divisor;
  let dividend: bigint;
  if (signed) {
    divisor = BigInt.asIntN(Number(bits), divisor);
    if (divisor === 0n) divisor = -1n;
    quotient = BigInt.asIntN(Number(bits), quotient);
    dividend = quotient * divisor;
    const part = remainder % (divisor < 0n ? -divisor : divisor);
    dividend += dividend < 0n ? -part : part;
    if (random.chance(0.1)) dividend += divisor;
  } else {
    dividend = quotient * divisor + remainder;
    if (random.chance(0.1)) dividend += divisor;
  }
  state.setRm(Number(bits), divisor);
  if (bits === 8n) state.regs[RAX] = (state.regs[RAX]! & ~0xffffn) | (dividend & 0xffffn);
  else {
    state.regs[RAX] = (state.regs[RAX]! & ~mask) | (dividend & mask);
    state.regs[RDX] = (state.regs[RDX]! & ~mask) | ((dividend >> bits) & mask);
  }
}

function stringInstruction(state: State): void {
  const { random, instruction } = state;
  const { form } = instruction.variant;
  const size = form.size === 0 ? 1 : form.size / 8;
  // Where both operands would fault, the manual does not say which does: one of them is always good.
  const good = (): number => PLACE.dataBase + 0x200 + random.below(PLACE.dataWritable - 0x400);
  const kind = random.below(10);
  const source = kind < 5 ? target(random, size) : good();
  let destination = kind < 5 ? good() : target(random, size);
  if (kind === 9) destination = source + random.between(-40, 40);
  state.pointTo(RSI, source, true);
  state.pointTo(RDI, destination, false);
  const length = random.below(20);
  const counts =
    length < 14 ? random.below(20) : length < 17 ? random.below(300) : length < 18 ? 0 : random.u32();
  if (instruction.choice.address32) state.pinLow(RCX, 32, BigInt(counts));
  else state.pin(RCX, length === 19 ? random.u64() : BigInt(counts));
  if (form.repeat === '') state.regs[RCX] = integer(random);
  // Runs of equal elements, so that comparisons go on for a while.
  const run = random.below(60) * size;
  if (/^(CMPS|SCAS)/.test(state.name) && run > 0) {
    const down = (state.rflags & 0x400) !== 0;
    const data = new Uint8Array(run);
    const value = integer(random);
    for (let i = 0; i < run; i++) data[i] = Number((value >> BigInt((i % size) * 8)) & 0xffn);
    const from = (start: number): number => (down ? start + size - run : start);
    if (state.name.startsWith('CMPS')) state.poke(from(source), data);
    state.poke(from(destination), data);
    if (random.chance(0.7)) state.regs[RAX] = value;
  }
}

/** Selectors for a far transfer: Linux' 64-bit user code mostly; never its 32-bit one, which has another mode. */
const codeSelector = (random: Random): bigint =>
  random.chance(0.8) ? 0x33n : random.pick([0n, 3n, 0x2bn, 0x10n, 0x13n, 0x30n, 0x31n, 0xfff8n, 0x7n]);

/** Offset and selector. */
function farPointer(state: State, at: bigint): void {
  const bytes = state.instruction.variant.form.size / 8;
  const { random } = state;
  state.pokeInteger(at, bytes, random.chance(0.9) ? codeAddress(random, state.instruction) : integer(random));
  state.pokeInteger(at + BigInt(bytes), 2, codeSelector(random));
}

/** What IRET pops: rip, cs, rflags, rsp, ss. */
function interruptFrame(state: State): void {
  const { random } = state;
  const bytes = state.instruction.variant.form.size / 8;
  const slot = (i: number): bigint => state.regs[RSP]! + BigInt(i * bytes);
  state.pokeInteger(
    slot(0),
    bytes,
    random.chance(0.9) ? codeAddress(random, state.instruction) : integer(random),
  );
  state.pokeInteger(slot(1), bytes, codeSelector(random));
  // With AC in the popped flags a processor may raise #AC for the rest of the pops; Linux takes that for a split lock
  // and retries for ever.
  state.pokeInteger(slot(2), bytes, popFlags(random) & ~0x40000n);
  state.pokeInteger(slot(3), bytes, integer(random));
  state.pokeInteger(slot(4), bytes, random.chance(0.8) ? 0x2bn : selector(random));
}

/** Whether bytes that the mask leaves out can fault is open: not across pages, and seldom without a byte to store. */
function maskedStore(state: State): void {
  const { random, batch, instruction } = state;
  state.pointTo(RDI, target(random, 16) & ~15, true);
  const { rm } = instruction.choice;
  const fx = batch.at + CASE.fx;
  const mmx = instruction.variant.form.definition.name === 'MASKMOVQ';
  const top = (batch.view.getUint16(fx + FX.fsw, true) >> 11) & 7;
  const at = mmx ? FX.st + 16 * (((rm & 7) - top) & 7) : FX.xmm + 16 * rm;
  batch.view.setUint8(fx + at, batch.view.getUint8(fx + at) | 0x80);
}

function conditionalExchange(state: State): void {
  const { random } = state;
  if (random.chance(0.5)) return;
  const bits = state.rmBits;
  const mask = (1n << BigInt(bits)) - 1n;
  state.setRm(bits, state.regs[RAX]! & mask);
}

function exchangeWide(state: State): void {
  if (state.random.chance(0.5)) return;
  const half = state.instruction.variant.form.size / 8;
  state.pokeInteger(state.effective, half, state.regs[RAX]!);
  state.pokeInteger(state.effective + BigInt(half), half, state.regs[RDX]!);
}

/** An image of the x87 environment in protected 32-bit form, or of registers behind it. */
function environment(state: State): void {
  const { random } = state;
  const image = new Uint8Array(108);
  const view = new DataView(image.buffer);
  for (let i = 0; i < 108; i += 4) view.setUint32(i, random.u32(), true);
  const control = random.chance(0.5) ? 0x37f : 0x40 | (random.u32() & 0xf3f & ~0x100) | 0x200;
  view.setUint16(0, control, true);
  view.setUint16(
    4,
    random.chance(0.8) ? summarize(random.u32() & 0x7f00, control) : random.u32() & 0xffff,
    true,
  );
  if (state.name === 'FRSTOR') {
    for (let i = 28; i < 108; i += 10) {
      const [low, high, top] = float80(random);
      view.setUint32(i, low, true);
      view.setUint32(i + 4, high, true);
      view.setUint16(i + 8, top, true);
    }
  }
  state.poke(state.effective, image);
}

function fxImage(state: State): void {
  const { random } = state;
  const image = new Uint8Array(512);
  const view = new DataView(image.buffer);
  fpuState(random, view, 0, random.pick(['FADD', 'ADDPS', 'PADDB']));
  if (random.chance(0.1)) view.setUint32(FX.mxcsr, random.u32(), true);
  state.poke(state.effective, image);
}

/** A memory operand's contents. */
function fillMemory(state: State, kind: string): void {
  const { random, instruction } = state;
  const bytes = instruction.memoryBytes;
  if (bytes > 64) return;
  const data = new Uint8Array(Math.max(bytes, 16));
  const view = new DataView(data.buffer);
  if (kind === 'x87') {
    if (bytes === 4 && random.chance(0.8)) view.setUint32(0, float32(random), true);
    else if (bytes === 8 && random.chance(0.8)) {
      const [low, high] = float64(random);
      view.setUint32(0, low, true);
      view.setUint32(4, high, true);
    } else if (bytes === 10) {
      const [low, high, top] = float80(random);
      view.setUint32(0, low, true);
      view.setUint32(4, high, true);
      view.setUint16(8, top, true);
      if (state.name === 'FBLD' && random.chance(0.9)) {
        for (let i = 0; i < 9; i++) data[i] = random.below(10) * 16 + random.below(10);
      }
    } else view.setBigUint64(0, integer(random), true);
  } else if (kind !== '') vector(random, view, 0, kind as 'int');
  else {
    view.setBigUint64(0, integer(random), true);
    view.setBigUint64(8, integer(random), true);
    // Equal to a register, now and then.
    if (random.chance(0.15)) view.setBigUint64(0, state.regs[random.below(16)]!, true);
  }
  state.poke(state.effective, data.subarray(0, bytes));
}

/** What each mnemonic needs of its state before its address is chosen. */
const BEFORE: readonly [RegExp, (state: State) => void][] = [
  [/^(PUSH|POP|CALL|RET|IRET|ENTER)/, (state) => state.pin(RSP, stackPointer(state.random))],
  [
    /^(ENTER|LEAVE)/,
    (state) => state.pin(RBP, state.random.chance(0.9) ? stackPointer(state.random) : integer(state.random)),
  ],
  [/^XLAT/, (state) => state.pointTo(RBX, target(state.random, 1) - Number(state.regs[RAX]! & 0xffn), true)],
  [/^MASKMOV/, maskedStore],
  [
    /^(SHL|SAL|SHR|SAR|ROL|ROR|RCL|RCR|SHLD|SHRD)$/,
    (state) => {
      if (state.random.chance(0.7))
        state.pinLow(RCX, 8, BigInt(state.random.below(state.random.pick([3, 34, 70]))));
    },
  ],
  [
    /^BT[SRC]?$/,
    (state) => {
      const { form } = state.instruction.variant;
      // A register's bit offset may reach anywhere: mostly near.
      if (form.memory && form.encoding.modrm === 'r' && state.random.chance(0.9)) {
        state.pin(state.instruction.choice.reg, BigInt(state.random.between(-600, 600)));
      }
    },
  ],
  [/^(LOOP|J[RE]?CXZ)/, (state) => state.random.chance(0.6) && state.pin(RCX, BigInt(state.random.below(3)))],
  [
    /^PCMP[EI]STR/,
    (state) => {
      for (const register of [RAX, RDX]) {
        if (state.random.chance(0.8)) state.pinLow(register, 32, BigInt(state.random.between(-18, 18)));
      }
    },
  ],
];

/** What each mnemonic needs once its address is known. */
const AFTER: readonly [RegExp, (state: State) => void][] = [
  [/^I?DIV$/, divide],
  [/^CMPXCHG$/, conditionalExchange],
  [/^CMPXCHG8B/, exchangeWide],
  [
    /^(JMP|CALL)$/,
    (state) => state.random.chance(0.93) && state.setRm(64, codeAddress(state.random, state.instruction)),
  ],
  [/^(JMP|CALL) far$/, (state) => farPointer(state, state.effective)],
  [/^RETF$/, (state) => farPointer(state, state.regs[RSP]!)],
  [/^IRET$/, interruptFrame],
  [
    /^RET$/,
    (state) => {
      if (state.random.chance(0.93))
        state.pokeInteger(state.regs[RSP]!, 8, codeAddress(state.random, state.instruction));
    },
  ],
  [/^POPF/, (state) => state.pokeInteger(state.regs[RSP]!, 8, popFlags(state.random))],
  [
    /^MOV$/,
    (state) => {
      const { map, opcode } = state.instruction.variant.form.encoding;
      if (map === 0 && opcode === 0x8e) state.setRm(16, selector(state.random));
    },
  ],
  [/^(LAR|LSL|VERR|VERW)$/, (state) => state.setRm(16, selector(state.random))],
  [/^POP [FG]S$/, (state) => state.pokeInteger(state.regs[RSP]!, 8, selector(state.random))],
  [
    /^LDMXCSR$/,
    (state) =>
      state.pokeInteger(
        state.effective,
        4,
        BigInt(state.random.u32() & (state.random.chance(0.9) ? 0xffff : ~0)),
      ),
  ],
  [/^(FLDENV|FRSTOR)$/, environment],
  [/^FXRSTOR/, fxImage],
];

/**
 * Adds a case for the instruction to the batch.
 * @returns the linear address of the memory operand, -1n where there is none
 */
export function addCase(random: Random, batch: Batch, instruction: Instruction): bigint {
  const { form } = instruction.variant;
  const { definition } = form;
  batch.begin();
  const state = new State(random, batch, instruction);
  let kind = '';
  if (definition.fpu) kind = fpuState(random, batch.view, batch.at + CASE.fx, definition.name);
  else plainFpuState(random, batch.view, batch.at + CASE.fx);
  if (definition.name.startsWith('F')) kind = 'x87';
  if (definition.rep) stringInstruction(state);
  for (const [name, shape] of BEFORE) if (name.test(definition.name)) shape(state);
  if (form.memory) {
    const { address } = instruction.choice;
    const fixed = address.base < 0 && address.index < 0;
    const bytes = Math.max(instruction.memoryBytes, 1);
    let linear = fixed ? 0n : BigInt(operandAddress(random, bytes));
    if (!fixed && random.chance(0.02)) linear = random.u64() % TWO_64;
    else if (!fixed && bytes !== 10 && bytes < 28 && random.chance(0.01))
      linear = (random.pick(EDGES) - BigInt(random.below(20))) & (TWO_64 - 1n);
    state.address(linear);
    fillMemory(state, kind);
  }
  for (const [name, shape] of AFTER) if (name.test(definition.name)) shape(state);
  state.write();
  batch.end();
  return form.memory ? state.effective : -1n;
}
