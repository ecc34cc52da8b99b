/**
 * Encodes an instruction: the inverse of the decoder, from the same notation (src/x86/isa/encoding.ts).
 */
import type { Form } from '../../src/x86/isa/form.ts';

/** Everything about an instruction that its form leaves open. Registers by their number, 0..15. */
export interface Choice {
  /** ModRM.reg, or the register in the opcode. */
  reg: number;
  /** ModRM.rm where it names a register. */
  rm: number;
  address: Address;
  segment: 'none' | 'fs' | 'gs';
  /** 67: addresses have 32 bits. */
  address32: boolean;
  lock: boolean;
  /** A REX prefix even where nothing needs it (changes what byte registers 4..7 are). */
  rex: boolean;
  /** Set REX.W although the instruction does not look at it. */
  spareW: boolean;
  /** Prefix bytes that the instruction does not look at. */
  sparePrefixes: number[];
  /** By how many places the legacy prefixes are rotated: their order is free. */
  rotate: number;
  /** A REX byte in front of other prefixes, where it counts for nothing; 0: none. */
  deadRex: number;
  /** In the order of the encoding. */
  immediates: bigint[];
}

/** The parts of a memory operand; -1: no such register. */
export interface Address {
  base: number;
  index: number;
  /** 1, 2, 4 or 8 */
  scale: number;
  displacement: number;
  /** Bytes that the displacement takes. */
  size: 0 | 1 | 4;
  ripRelative: boolean;
}

export const NO_ADDRESS: Address = {
  base: -1,
  index: -1,
  scale: 1,
  displacement: 0,
  size: 0,
  ripRelative: false,
};

/** Bytes of an immediate of the notation. */
export function immediateBytes(notation: string, size: number, address32: boolean): number {
  switch (notation) {
    case 'ib':
    case 'cb':
      return 1;
    case 'iw':
      return 2;
    case 'id':
    case 'cd':
      return 4;
    case 'iz':
      return size === 16 ? 2 : 4;
    case 'iv':
      return size === 16 ? 2 : size === 32 ? 4 : 8;
    case 'a':
      return address32 ? 4 : 8;
    default:
      throw new Error(`immediate '${notation}'`);
  }
}

const ESCAPES: readonly (readonly number[])[] = [[], [0x0f], [0x0f, 0x38], [0x0f, 0x3a]];
const SEGMENTS = { fs: 0x64, gs: 0x65 } as const;
const MANDATORY: Record<string, number> = { '66': 0x66, F2: 0xf2, F3: 0xf3 };

/** The bytes of the instruction. @throws RangeError where the choice has no encoding */
export function encode(form: Form, choice: Choice): number[] {
  const { definition, encoding } = form;
  const bytes = [...choice.sparePrefixes];
  if (choice.segment !== 'none') bytes.push(SEGMENTS[choice.segment]);
  if (choice.address32) bytes.push(0x67);
  if (choice.lock) bytes.push(0xf0);
  if (form.repeat !== '') bytes.push(form.repeat === 'rep' ? 0xf3 : 0xf2);
  if (form.size === 16) bytes.push(0x66);
  if (encoding.prefix in MANDATORY) bytes.push(MANDATORY[encoding.prefix]!);

  for (let n = choice.rotate; n > 0 && bytes.length > 1; n--) bytes.push(bytes.shift()!);
  if (choice.deadRex !== 0 && bytes.length > 0) bytes.unshift(choice.deadRex);

  const { address } = choice;
  const hasModrm = encoding.modrm !== null && encoding.modrm !== 'fixed';
  let rex = 0;
  if (encoding.rexW || choice.spareW || (form.size === 64 && !definition.default64)) rex |= 8;
  if (hasModrm) {
    if (encoding.modrm === 'r' && choice.reg >= 8) rex |= 4;
    if (!form.memory && choice.rm >= 8) rex |= 1;
    if (form.memory && address.base >= 8) rex |= 1;
    if (form.memory && address.index >= 8) rex |= 2;
  } else if (encoding.plusRegister && choice.reg >= 8) rex |= 1;
  if (rex !== 0 || choice.rex) bytes.push(0x40 | rex);

  bytes.push(...ESCAPES[encoding.map]!);
  bytes.push(encoding.plusRegister ? encoding.opcode | (choice.reg & 7) : encoding.opcode);
  let ripDisplacement = -1;
  if (encoding.modrm === 'fixed') bytes.push(encoding.modrmByte);
  else if (encoding.modrm !== null) {
    const reg = (encoding.modrm === 'r' ? choice.reg & 7 : encoding.modrm) << 3;
    if (!form.memory) bytes.push(0xc0 | reg | (choice.rm & 7));
    else if (address.ripRelative) {
      bytes.push(reg | 5);
      ripDisplacement = bytes.length;
      bytes.push(0, 0, 0, 0);
    } else pushAddress(bytes, reg, address);
  }
  for (const [i, notation] of encoding.immediates.entries()) {
    let value = BigInt.asUintN(64, choice.immediates[i]!);
    for (let n = immediateBytes(notation, form.size, choice.address32); n > 0; n--) {
      bytes.push(Number(value & 0xffn));
      value >>= 8n;
    }
  }
  // The displacement counts from the end of the instruction: the caller gives the distance from its start.
  if (ripDisplacement >= 0) {
    const view = new DataView(new ArrayBuffer(4));
    view.setInt32(0, address.displacement - bytes.length, true);
    for (let i = 0; i < 4; i++) bytes[ripDisplacement + i] = view.getUint8(i);
  }
  return bytes;
}

function pushAddress(bytes: number[], reg: number, address: Address): void {
  const { base, index, displacement } = address;
  let { size } = address;
  if (index === 4) throw new RangeError('rsp is no index');
  let mod = 0;
  if (base < 0) size = 4;
  else {
    if (size === 0 && (base & 7) === 5) throw new RangeError('this base needs a displacement');
    mod = size === 0 ? 0 : size === 1 ? 1 : 2;
  }
  const low = base < 0 ? 5 : base & 7;
  if (index >= 0 || base < 0 || low === 4) {
    const scale = [1, 2, 4, 8].indexOf(address.scale);
    bytes.push((mod << 6) | reg | 4, (scale << 6) | ((index < 0 ? 4 : index & 7) << 3) | low);
  } else bytes.push((mod << 6) | reg | low);
  for (let i = 0; i < size; i++) bytes.push((displacement >> (8 * i)) & 0xff);
}
