import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Memory } from '../../machine/memory.ts';
import { Cpu } from '../cpu.ts';
import { FLAG, VECTOR } from '../state.ts';
import { FX, Numbers, RECORD, Records } from './native.ts';
import { X87, x87Defined, x87Operand } from './x87.ts';

const CASES = Number(process.env['FPU_CASES'] ?? 1000);
const SEED = Number(process.env['FPU_SEED'] ?? 1);
/** The answers are those of Intel's processors; others differ in last instruction pointers, approximations and the like. */
const comparable =
  process.arch === 'x64' &&
  spawnSync('gcc', ['--version']).status === 0 &&
  existsSync('/proc/cpuinfo') &&
  readFileSync('/proc/cpuinfo', 'utf8').includes('GenuineIntel');

const CPU_ADDRESS = 0x1000;
const OPERAND = 0x3000;
const RIP = 0x123456789;
const DATA = 0x1abcdef12;
const OLD_FIP = 0x1122334455n;
const OLD_FDP = 0x5544332211n;
const STATUS_FLAGS = FLAG.CF | FLAG.PF | FLAG.AF | FLAG.ZF | FLAG.SF | FLAG.OF;

/** Results that Intel does not promise to round correctly: one unit in the last place is allowed. */
const APPROXIMATE = new Map([
  [0xf0, 'f2xm1'],
  [0xf1, 'fyl2x'],
  [0xf2, 'fptan'],
  [0xf3, 'fpatan'],
  [0xf9, 'fyl2xp1'],
  [0xfb, 'fsincos'],
  [0xfe, 'fsin'],
  [0xff, 'fcos'],
]);

/** A class of encodings: fixed ModRM, or ModRM with ST(i) in the low bits. */
interface Group {
  readonly name: string;
  readonly opcode: number;
  readonly modrm: number;
  readonly registers: boolean;
}

function groups(): Group[] {
  const all: Group[] = [];
  const hex = (n: number) => n.toString(16);
  for (let opcode = 0xd8; opcode <= 0xdf; opcode++) {
    for (let reg = 0; reg < 8; reg++) {
      const modrm = (reg << 3) | 7;
      if (x87Operand(opcode, modrm)) {
        all.push({ name: `${hex(opcode)} /${reg} memory`, opcode, modrm, registers: false });
      }
    }
    for (let modrm = 0xc0; modrm < 0x100; modrm += 8) {
      const each = Array.from({ length: 8 }, (_, i) => modrm + i).filter((m) => x87Defined(opcode, m));
      const stack = each.length === 8 && !(opcode === 0xd9 && modrm >= 0xe0);
      if (stack) all.push({ name: `${hex(opcode)} ${hex(modrm)}+i`, opcode, modrm, registers: true });
      else
        for (const m of each)
          all.push({ name: `${hex(opcode)} ${hex(m)}`, opcode, modrm: m, registers: false });
    }
  }
  return all;
}

function controlWord(numbers: Numbers): number {
  switch (numbers.below(5)) {
    case 0:
      return 0x37f;
    case 1:
      return 0x37f | (numbers.below(4) << 10);
    case 2:
      return 0x7f | (numbers.below(16) << 8);
    case 3:
      return (0x37f & ~(1 << numbers.below(6))) | (numbers.below(4) << 10);
    default:
      return numbers.below(0x10000);
  }
}

function fillState(numbers: Numbers, records: Records, index: number): void {
  const { view } = records;
  const at = records.at(index);
  const control = controlWord(numbers);
  view.setUint16(at + FX.fcw, control, true);
  let flags = numbers.below(4) === 0 ? numbers.below(128) : 0;
  if (numbers.below(16) !== 0) flags &= control | 0x40;
  const conditions = numbers.below(2) ? numbers.below(0x10000) & 0x4700 : 0;
  view.setUint16(at + FX.fsw, (numbers.below(8) << 11) | conditions | flags, true);
  const tags = numbers.below(4);
  records.bytes[at + FX.ftw] = tags === 0 ? numbers.below(256) : tags === 1 ? 1 << numbers.below(8) : 0xff;
  if (numbers.below(3) === 0) records.bytes[at + FX.ftw] = 0xff & ~(0x8080 >> numbers.below(8));
  view.setUint16(at + FX.fop, 0x123, true);
  view.setBigUint64(at + FX.fip, OLD_FIP, true);
  view.setBigUint64(at + FX.fdp, OLD_FDP, true);
  let { significand, head } = numbers.extended();
  for (let i = 0; i < 8; i++) {
    // Some operands are nearly those before them.
    if (numbers.below(4) === 0) {
      significand = numbers.near(significand) | (significand & (1n << 63n));
      if (numbers.below(2)) head ^= 0x8000;
      if (numbers.below(2)) head = (head & 0x8000) | ((head + numbers.below(3) - 1) & 0x7fff);
    } else ({ significand, head } = numbers.extended());
    view.setBigUint64(at + FX.st + 16 * i, significand, true);
    view.setUint16(at + FX.st + 16 * i + 8, head, true);
  }
  const status = numbers.u32() & STATUS_FLAGS;
  view.setBigUint64(at + RECORD.flags, BigInt(status | 0x202), true);
  view.setBigUint64(at + RECORD.rax, numbers.u64(), true);
}

function fillOperand(numbers: Numbers, records: Records, index: number, group: Group): void {
  const operand = x87Operand(group.opcode, group.modrm);
  if (!operand) return;
  const { view } = records;
  const at = records.at(index) + RECORD.memory;
  for (let i = 0; i < 128; i += 4) view.setUint32(at + i, numbers.u32(), true);
  const reg = (group.modrm >> 3) & 7;
  const shift = BigInt(numbers.below(64));
  const integer = BigInt.asUintN(64, BigInt.asIntN(64, numbers.u64()) >> shift);
  switch (group.opcode) {
    case 0xd8:
      view.setUint32(at, numbers.single(), true);
      break;
    case 0xd9:
      if (reg === 0) view.setUint32(at, numbers.single(), true);
      break;
    case 0xdc:
      view.setBigUint64(at, numbers.double(), true);
      break;
    case 0xdd:
      if (reg === 0) view.setBigUint64(at, numbers.double(), true);
      break;
    case 0xda:
    case 0xde:
      view.setBigUint64(at, integer, true);
      break;
    case 0xdb:
    case 0xdf:
      if (operand.bytes === 10 && group.opcode === 0xdb) {
        const { significand, head } = numbers.extended();
        view.setBigUint64(at, significand, true);
        view.setUint16(at + 8, head, true);
      } else if (operand.bytes === 10) {
        const digits = numbers.below(19);
        for (let i = 0; i < 9; i++) {
          const low = 2 * i < digits ? numbers.below(10) : 0;
          const high = 2 * i + 1 < digits ? numbers.below(10) : 0;
          view.setUint8(at + i, low | (high << 4));
        }
      } else view.setBigUint64(at, integer, true);
  }
}

/** Operands mostly in the range that the manual defines the function for. */
function restrict(numbers: Numbers, records: Records, index: number, name: string): void {
  const { view, bytes } = records;
  const at = records.at(index);
  const limit = {
    f2xm1: 0x3ffe,
    fyl2xp1: 0x3ffe,
    fsin: 0x403d,
    fcos: 0x403d,
    fsincos: 0x403d,
    fptan: 0x403d,
  }[name];
  const head = view.getUint16(at + FX.st + 8, true);
  if (limit === undefined || (head & 0x7fff) <= limit || numbers.below(8) === 0) return;
  const exponent = limit - numbers.below(numbers.below(2) ? 8 : 80);
  view.setUint16(at + FX.st + 8, (head & 0x8000) | exponent, true);
  bytes[at + FX.st + 7]! |= 0x80;
}

function describeState(view: DataView, at: number): string {
  const n = (value: number | bigint, digits: number) => value.toString(16).padStart(digits, '0');
  const registers = [0, 1, 2, 7].map(
    (i) =>
      n(view.getUint16(at + FX.st + 16 * i + 8, true), 4) +
      ':' +
      n(view.getBigUint64(at + FX.st + 16 * i, true), 16),
  );
  return [
    'fcw',
    n(view.getUint16(at + FX.fcw, true), 4),
    'fsw',
    n(view.getUint16(at + FX.fsw, true), 4),
    'ftw',
    n(view.getUint8(at + FX.ftw), 2),
    'fop',
    n(view.getUint16(at + FX.fop, true), 3),
    'st0,1,2,7',
    ...registers,
  ].join(' ');
}

describe.skipIf(!comparable)('x87 against the host', () => {
  let directory = '';
  let program = '';
  const memory = Memory.create(0x20000);
  const x87 = new X87(memory);
  const cpu = new Cpu(memory, CPU_ADDRESS);

  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'xenolith-fpu-'));
    program = join(directory, 'native');
    const built = spawnSync('gcc', ['-O2', '-o', program, join(import.meta.dirname, 'native.c')]);
    expect(String(built.stderr) + built.status).toBe('0');
  });
  /** Before FDP_EXCPTN_ONLY every instruction with a memory operand updated the data pointer. */
  let pointsOnlyAtExceptions = true;
  beforeAll(() => {
    const probe = Records.empty(1);
    probe.setCode(0, [0xd9, 0x07]);
    probe.view.setBigUint64(FX.fdp, OLD_FDP, true);
    const answer = new Records(spawnSync(program, { input: probe.bytes }).stdout);
    pointsOnlyAtExceptions = answer.u64(0, FX.fdp) === OLD_FDP;
  });
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  /** Runs one record on our processor, in place. Returns the vector. */
  function runOurs(records: Records, index: number, opcode: number, modrm: number): number {
    const at = records.at(index);
    const area = 0x4000;
    memory.u8.set(records.state(index), area);
    expect(x87.fxrstor(CPU_ADDRESS, area, true)).toBe(0);
    memory.u8.set(records.memory(index), OPERAND);
    cpu.rflags = Number(records.u64(index, RECORD.flags));
    cpu.setReg(0, records.u64(index, RECORD.rax));
    const vector = x87.execute(CPU_ADDRESS, opcode, modrm, modrm < 0xc0 ? OPERAND : 0, RIP, DATA);
    x87.fxsave(CPU_ADDRESS, area, true);
    records.bytes.set(memory.u8.subarray(area, area + 416), at);
    records.memory(index).set(memory.u8.subarray(OPERAND, OPERAND + 512));
    records.view.setBigUint64(at + RECORD.flags, BigInt(cpu.rflags | 2 | FLAG.IF), true);
    records.view.setBigUint64(at + RECORD.rax, cpu.reg(0), true);
    return vector;
  }

  /** Pointers hold addresses of the host's program: told apart only by whether they changed. */
  function normalise(host: Records, index: number): void {
    const at = host.at(index);
    for (const [offset, old, ours] of [
      [FX.fip, OLD_FIP, BigInt(RIP)],
      [FX.fdp, OLD_FDP, BigInt(DATA)],
    ] as const) {
      const value = host.u64(index, offset);
      if (value !== old && value > 0xffffffffn) host.view.setBigUint64(at + offset, ours, true);
    }
  }

  function distance(a: DataView, b: DataView, at: number): bigint {
    const value = (view: DataView) =>
      (BigInt(view.getUint16(at + 8, true) & 0x7fff) << 63n) + (view.getBigUint64(at, true) & ~(1n << 63n));
    const d = value(a) - value(b);
    return d < 0n ? -d : d;
  }

  for (const group of groups()) {
    it(group.name, () => {
      const numbers = new Numbers(group.opcode * 256 + group.modrm + 0x10000 * SEED);
      const approximate = group.opcode === 0xd9 ? APPROXIMATE.get(group.modrm) : undefined;
      const input = Records.empty(CASES);
      const codes: number[] = [];
      for (let i = 0; i < CASES; i++) {
        fillState(numbers, input, i);
        fillOperand(numbers, input, i, group);
        if (approximate) restrict(numbers, input, i, approximate);
        codes.push(group.registers ? group.modrm + numbers.below(8) : group.modrm);
        input.setCode(i, [group.opcode, codes[i]!]);
      }
      const answer = spawnSync(program, { input: input.bytes, maxBuffer: 1 << 30 });
      expect(answer.status).toBe(0);
      const host = new Records(answer.stdout);
      expect(host.count).toBe(CASES);

      const mismatches: string[] = [];
      let inexact = 0;
      for (let i = 0; i < CASES; i++) {
        const at = input.at(i);
        const before = describeState(input.view, at);
        const operand = Buffer.from(input.memory(i).subarray(0, 10)).toString('hex');
        const flagsBefore = input.u64(i, RECORD.flags);
        const vector = runOurs(input, i, group.opcode, codes[i]!);
        normalise(host, i);
        if (!pointsOnlyAtExceptions) host.view.setBigUint64(at + FX.fdp, input.u64(i, FX.fdp), true);
        const signal = host.signal(i);
        const theirs = signal === 8 ? VECTOR.MF : signal === 4 ? VECTOR.UD : signal;
        if (signal !== 0) host.view.setBigUint64(at + RECORD.flags, flagsBefore, true);
        let same = vector === theirs;
        const wrong: string[] = same ? [] : ['vector ' + vector + ', host ' + theirs];
        if (approximate && same) {
          // Within one unit: then take the host's, and C1 with it.
          let off = false;
          for (let k = 0; k < 2; k++) {
            const st = at + FX.st + 16 * k;
            const d = distance(input.view, host.view, st);
            if (d === 1n) {
              off = true;
              host.view.setBigUint64(st, input.view.getBigUint64(st, true), true);
              host.view.setUint16(st + 8, input.view.getUint16(st + 8, true), true);
            }
          }
          const c1 =
            (input.view.getUint16(at + FX.fsw, true) ^ host.view.getUint16(at + FX.fsw, true)) & 0x200;
          if (off || c1) {
            if (off) inexact++;
            const status = host.view.getUint16(at + FX.fsw, true);
            host.view.setUint16(at + FX.fsw, status ^ c1, true);
          }
        }
        if (Buffer.compare(input.bytes.subarray(at, at + 160), host.bytes.subarray(at, at + 160)) !== 0)
          same = false;
        if (Buffer.compare(input.memory(i), host.memory(i)) !== 0) {
          same = false;
          const show = (r: Records) => Buffer.from(r.memory(i).subarray(0, 28)).toString('hex');
          wrong.push('memory ' + show(input) + ', host ' + show(host));
        }
        for (const [name, offset] of [
          ['rax', RECORD.rax],
          ['flags', RECORD.flags],
        ] as const) {
          const [a, b] = [input.u64(i, offset), host.u64(i, offset)];
          if (a !== b) {
            same = false;
            wrong.push(`${name} ${a.toString(16)}, host ${b.toString(16)}`);
          }
        }
        if (!same) {
          mismatches.push(
            [
              `${codes[i]!.toString(16)} [${operand}]`,
              'before ' + before,
              '  ours ' + describeState(input.view, at),
              '  host ' + describeState(host.view, at),
              ...wrong,
            ].join('\n'),
          );
        }
      }
      if (approximate && process.env['FPU_REPORT'])
        console.log(`${approximate}: ${inexact} of ${CASES} one unit off`);
      expect(mismatches.length, mismatches.slice(0, 4).join('\n')).toBe(0);
    });
  }

  it('refuses what is not defined', () => {
    const undefinedForms: [number, number][] = [];
    for (let opcode = 0xd8; opcode <= 0xdf; opcode++) {
      for (let modrm = 0; modrm < 256; modrm++) {
        if (modrm < 0xc0 && (modrm & 0xc7) !== 7) continue;
        if (!x87Defined(opcode, modrm)) undefinedForms.push([opcode, modrm]);
      }
    }
    const input = Records.empty(undefinedForms.length);
    undefinedForms.forEach((code, i) => {
      input.setCode(i, code);
    });
    const host = new Records(spawnSync(program, { input: input.bytes, maxBuffer: 1 << 30 }).stdout);
    undefinedForms.forEach(([opcode, modrm], i) => {
      expect(host.signal(i), opcode.toString(16) + modrm.toString(16)).toBe(4);
      expect(x87.execute(CPU_ADDRESS, opcode, modrm, OPERAND)).toBe(VECTOR.UD);
    });
  });
});
