/**
 * What is tested: every form of every definition (src/x86/isa/form.ts), in every way in which it can be written that
 * goes another way through decoder or address computation: addressing form, byte registers with and without REX,
 * segment override, 67, LOCK.
 */
import type { Definition } from '../../src/x86/isa/definition.ts';
import { operandBits } from '../../src/x86/isa/encoding.ts';
import { expandForms, type Form, formName } from '../../src/x86/isa/form.ts';

export const ADDRESSINGS = [
  'base',
  'base+disp8',
  'base+disp32',
  'base+index',
  'base+index+disp8',
  'base+index+disp32',
  'index+disp32',
  'rip',
  'disp32',
] as const;
export type Addressing = (typeof ADDRESSINGS)[number];

export interface Variant {
  readonly form: Form;
  readonly name: string;
  /** 'any': chosen anew for each instruction. */
  readonly addressing: Addressing | 'any';
  readonly segment: 'none' | 'fs' | 'gs';
  readonly address32: boolean;
  readonly lock: boolean;
  /** LOCK where it is not allowed: #UD. */
  readonly badLock: boolean;
  /** Byte registers: numbers 4..7 are ah ch dh bh ('legacy', no REX), or spl bpl sil dil ('rex'). */
  readonly bytes: 'none' | 'legacy' | 'rex';
}

/** Definitions that cannot be compared with user mode on a host, and why. */
export const EXCLUDED: Readonly<Record<string, string>> = {
  SYSCALL: 'enters the host kernel',
  SYSENTER: 'enters the host kernel',
  INT: 'enters the host kernel',
  RDTSC: 'time differs',
  RDTSCP: 'time differs',
  CPUID: 'the host is another processor',
  RDRAND: 'random',
  RDSEED: 'random',
  RDPID: 'the host is another processor',
  SGDT: 'emulated by the host kernel (UMIP)',
  SIDT: 'emulated by the host kernel (UMIP)',
  SLDT: 'emulated by the host kernel (UMIP)',
  SMSW: 'emulated by the host kernel (UMIP)',
  STR: 'emulated by the host kernel (UMIP)',
  XGETBV: 'the host has more state components',
};

/** Implicit memory operands without ModRM: rsi, rbx, rdi, moffs. */
const IMPLICIT_MEMORY = /^(MOVSB?|CMPSB?|LODSB?|OUTS.*|XLAT|MASKMOV.*)$/;
/** Implicit address-size registers. */
const ADDRESS_SIZED = /^(MOVSB?|CMPSB?|LODSB?|STOSB?|SCASB?|INS.*|OUTS.*|XLAT|MASKMOV.*|LOOP.*|J[RE]?CXZ)$/;

const BYTE_KINDS = ['E', 'G', 'R', 'Z'];

function byteRegisters(form: Form): boolean {
  return form.operands.some(
    (operand) =>
      BYTE_KINDS.includes(operand.kind) &&
      operandBits(operand.size, form.size) === 8 &&
      !(form.memory && (operand.kind === 'E' || operand.kind === 'R')),
  );
}

export function variantsOf(form: Form): Variant[] {
  const variants: Variant[] = [];
  const name = `${formName(form)} (${form.definition.code})`;
  const plain = {
    form,
    addressing: 'any',
    segment: 'none',
    address32: false,
    lock: false,
    badLock: false,
    bytes: 'none',
  } as const;
  const add = (suffix: string, more: Partial<Variant>): void => {
    variants.push({ ...plain, name: suffix === '' ? name : `${name} ${suffix}`, ...more });
  };
  const bytes = byteRegisters(form);
  // Without REX there is no 64-bit operand size.
  const legacy = bytes && form.size !== 64 && !form.encoding.rexW;
  const lockable = form.memory && form.definition.lock === true;
  if (!lockable && form.repeat === '' && (form.size === 0 || form.size === 32)) {
    add('bad lock', { lock: true, badLock: true, bytes: bytes ? 'rex' : 'none' });
  }
  if (form.memory) {
    for (const addressing of ADDRESSINGS)
      add(`[${addressing}]`, { addressing, bytes: bytes ? 'rex' : 'none' });
    if (legacy) add('high', { bytes: 'legacy' });
    add('fs:', { segment: 'fs', bytes: bytes ? 'rex' : 'none' });
    add('gs:', { segment: 'gs', bytes: bytes ? 'rex' : 'none' });
    add('a32', { address32: true, bytes: bytes ? 'rex' : 'none' });
    if (lockable) add('lock', { lock: true, bytes: bytes ? 'rex' : 'none' });
    return variants;
  }
  if (bytes) {
    add('rex', { bytes: 'rex' });
    if (legacy) add('high', { bytes: 'legacy' });
  } else add('', {});
  const moffs = form.encoding.immediates.includes('a');
  const implicit = form.encoding.modrm === null || form.definition.name.startsWith('MASKMOV');
  if (moffs || (implicit && IMPLICIT_MEMORY.test(form.definition.name))) {
    add('fs:', { segment: 'fs' });
    add('gs:', { segment: 'gs' });
  }
  if (moffs || (implicit && ADDRESS_SIZED.test(form.definition.name))) add('a32', { address32: true });
  return variants;
}

export interface Selection {
  readonly variants: Variant[];
  /** Names of definitions that are not compared. */
  readonly excluded: string[];
}

/** @param filter keep only forms whose name has all the words of it (upper and lower case do not matter) */
export function allVariants(definitions: readonly Definition[], filter = ''): Selection {
  const excluded = new Set<string>();
  const kept = definitions.filter((definition) => {
    if (!(definition.name in EXCLUDED)) return true;
    excluded.add(definition.name);
    return false;
  });
  const words = filter.toLowerCase().split(' ');
  const variants = expandForms(kept)
    .flatMap(variantsOf)
    .filter(({ name }) => {
      const own = name.toLowerCase();
      return words.every((word) =>
        /^[a-z0-9]+$/.test(word) ? own.split(/[ ,[\]+:=()]/).includes(word) : own.includes(word),
      );
    });
  return { variants, excluded: [...excluded].sort() };
}
