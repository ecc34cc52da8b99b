/** Initial x87, MMX and SSE states. */
import type { Random } from './random.ts';
import { float80, integer, LANE_KINDS, type LaneKind, vector } from './values.ts';
import { FX } from './wire.ts';

/** x87 status word: exception flags, summary, busy. */
const FSW_EXCEPTIONS = 0x3f;
const FSW_ES_B = 0x8080;

/** What the lanes of vectors likely mean, from the mnemonic. */
function laneKind(random: Random, name: string): LaneKind {
  if (random.chance(0.15)) return random.pick(LANE_KINDS);
  if (/(PS|SS)$|PS2|SS2/.test(name)) return 'f32';
  if (/(PD|SD)$|PD2|SD2/.test(name)) return 'f64';
  if (/^(PACK|PADDS|PADDUS|PSUBS|PSUBUS|PAVG|PM|PSADBW|PABS|PHADD|PHSUB|PSIGN)/.test(name)) {
    return random.pick(['words', 'bytes', 'int'] as const);
  }
  return random.pick(['int', 'bytes', 'words'] as const);
}

function mxcsr(random: Random): number {
  if (random.chance(0.4)) return 0x1f80;
  let value = random.below(4) << 13;
  if (random.chance(0.3)) value |= 0x8000;
  if (random.chance(0.3)) value |= 0x40;
  value |= random.chance(0.6) ? 0x1f80 : random.below(0x40) << 7;
  if (random.chance(0.5)) value |= random.below(0x40);
  return value;
}

function controlWord(random: Random): number {
  if (random.chance(0.4)) return 0x37f;
  const masks = random.chance(0.7) ? 0x3f : random.below(0x40);
  return 0x40 | masks | (random.pick([0, 2, 3, 3]) << 8) | (random.below(4) << 10);
}

/** Sets ES and B as the pending exceptions demand. */
export function summarize(status: number, control: number): number {
  const pending = status & ~control & FSW_EXCEPTIONS;
  return pending !== 0 ? status | FSW_ES_B : status & ~FSW_ES_B;
}

/** Which of the physical registers are in use. */
function tags(random: Random, top: number): number {
  const kind = random.below(10);
  if (kind < 5) {
    // A stack of some depth, as programs have it.
    const depth = random.between(1, 8);
    let used = 0;
    for (let i = 0; i < depth; i++) used |= 1 << ((top + i) & 7);
    return used;
  }
  if (kind < 7) return 0xff;
  if (kind < 8) return 0;
  return random.below(256);
}

/** Fills the FXSAVE image at `at` for an instruction that works on it. */
export function fpuState(random: Random, view: DataView, at: number, name: string): LaneKind {
  const control = controlWord(random);
  let status = (random.below(8) << 11) | (random.below(2) << 14) | (random.below(8) << 8);
  if (random.chance(0.3)) status |= random.below(0x80);
  // A pending exception stops nearly every x87 and MMX instruction: seldom.
  if (random.chance(0.9)) status &= control | ~FSW_EXCEPTIONS;
  status = summarize(status, control);
  const kind = laneKind(random, name);
  view.setUint16(at + FX.fcw, control, true);
  view.setUint16(at + FX.fsw, status, true);
  view.setUint8(at + FX.ftw, tags(random, (status >> 11) & 7));
  view.setUint32(at + FX.mxcsr, mxcsr(random), true);
  view.setUint16(at + FX.fop, random.below(0x800), true);
  for (const pointer of [FX.fip, FX.fdp]) {
    view.setBigUint64(at + pointer, BigInt.asUintN(64, BigInt.asIntN(48, random.u64())), true);
  }
  const mmx = !name.startsWith('F');
  for (let i = 0; i < 8; i++) {
    const st = at + FX.st + i * 16;
    if (mmx) {
      vector(random, view, st, kind);
      view.setUint16(st + 8, random.chance(0.8) ? 0xffff : random.below(0x10000), true);
      view.setUint16(st + 10, 0, true);
      view.setUint32(st + 12, 0, true);
      continue;
    }
    const [low, high, top] = float80(random);
    view.setUint32(st, low, true);
    view.setUint32(st + 4, high, true);
    view.setUint16(st + 8, top, true);
  }
  for (let i = 0; i < 16; i++) {
    vector(random, view, at + FX.xmm + i * 16, random.chance(0.9) ? kind : random.pick(LANE_KINDS));
  }
  // Equal operands, and small changes of one.
  if (random.chance(0.2)) {
    const from = at + FX.xmm + random.below(16) * 16;
    const to = at + FX.xmm + random.below(16) * 16;
    for (let i = 0; i < 16; i += 4) view.setUint32(to + i, view.getUint32(from + i, true), true);
    if (random.chance(0.5)) view.setUint8(to + random.below(16), random.below(256));
  }
  return kind;
}

/** A plain state for instructions that do not touch it. */
export function plainFpuState(random: Random, view: DataView, at: number): void {
  view.setUint16(at + FX.fcw, 0x37f, true);
  view.setUint32(at + FX.mxcsr, 0x1f80, true);
  for (let i = 0; i < 32; i++) view.setBigUint64(at + FX.xmm + i * 8, integer(random), true);
}
