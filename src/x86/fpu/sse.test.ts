import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Memory } from '../../machine/memory.ts';
import { CPU, VECTOR } from '../state.ts';
import { FX, Numbers, RECORD, Records } from './native.ts';
import { SSE_FLOAT, SseFloat, type SseFloatName } from './sse.ts';

/** How an operation is encoded for the host: xmm0 is dst, xmm1 src (or [rdi] where src is not an XMM register). */
interface Encoding {
  readonly code: readonly number[];
  /** Where src is: xmm1 or memory. */
  readonly memory?: boolean;
  /** What the result is compared with. */
  readonly result: 'xmm' | 'rax' | 'flags' | 'mm';
  readonly imm?: boolean;
  /** Operand format that random numbers are drawn for. */
  readonly operand: 'single' | 'double' | 'integer';
}

function encodings(): Map<SseFloatName, Encoding> {
  const table = new Map<SseFloatName, Encoding>();
  const put = (name: string, encoding: Encoding) => {
    expect(SSE_FLOAT).toHaveProperty(name);
    table.set(name as SseFloatName, encoding);
  };
  const forms = [
    ['ss', [0xf3]],
    ['sd', [0xf2]],
    ['ps', []],
    ['pd', [0x66]],
  ] as const;
  const operandOf = (form: string) => (form[1] === 's' ? 'single' : 'double');
  const four: [string, number][] = [
    ['add', 0x58],
    ['sub', 0x5c],
    ['mul', 0x59],
    ['div', 0x5e],
    ['sqrt', 0x51],
    ['min', 0x5d],
    ['max', 0x5f],
  ];
  for (const [form, prefix] of forms) {
    const operand = operandOf(form);
    for (const [name, opcode] of four) {
      put(name + form, { code: [...prefix, 0x0f, opcode, 0xc1], result: 'xmm', operand });
    }
    put('cmp' + form, { code: [...prefix, 0x0f, 0xc2, 0xc1], result: 'xmm', imm: true, operand });
    const round = { ss: 0x0a, sd: 0x0b, ps: 0x08, pd: 0x09 }[form];
    put('round' + form, { code: [0x66, 0x0f, 0x3a, round, 0xc1], result: 'xmm', imm: true, operand });
  }
  for (const [name, opcode] of [
    ['rcp', 0x53],
    ['rsqrt', 0x52],
  ] as const) {
    put(name + 'ss', { code: [0xf3, 0x0f, opcode, 0xc1], result: 'xmm', operand: 'single' });
    put(name + 'ps', { code: [0x0f, opcode, 0xc1], result: 'xmm', operand: 'single' });
  }
  for (const [name, opcode] of [
    ['addsub', 0xd0],
    ['hadd', 0x7c],
    ['hsub', 0x7d],
  ] as const) {
    put(name + 'ps', { code: [0xf2, 0x0f, opcode, 0xc1], result: 'xmm', operand: 'single' });
    put(name + 'pd', { code: [0x66, 0x0f, opcode, 0xc1], result: 'xmm', operand: 'double' });
  }
  put('dpps', { code: [0x66, 0x0f, 0x3a, 0x40, 0xc1], result: 'xmm', imm: true, operand: 'single' });
  put('dppd', { code: [0x66, 0x0f, 0x3a, 0x41, 0xc1], result: 'xmm', imm: true, operand: 'double' });
  put('comiss', { code: [0x0f, 0x2f, 0xc1], result: 'flags', operand: 'single' });
  put('comisd', { code: [0x66, 0x0f, 0x2f, 0xc1], result: 'flags', operand: 'double' });
  put('ucomiss', { code: [0x0f, 0x2e, 0xc1], result: 'flags', operand: 'single' });
  put('ucomisd', { code: [0x66, 0x0f, 0x2e, 0xc1], result: 'flags', operand: 'double' });
  const conversions: [string, number[], Encoding['operand']][] = [
    ['cvtss2sd', [0xf3, 0x0f, 0x5a], 'single'],
    ['cvtsd2ss', [0xf2, 0x0f, 0x5a], 'double'],
    ['cvtps2pd', [0x0f, 0x5a], 'single'],
    ['cvtpd2ps', [0x66, 0x0f, 0x5a], 'double'],
    ['cvtdq2ps', [0x0f, 0x5b], 'integer'],
    ['cvtps2dq', [0x66, 0x0f, 0x5b], 'single'],
    ['cvttps2dq', [0xf3, 0x0f, 0x5b], 'single'],
    ['cvtdq2pd', [0xf3, 0x0f, 0xe6], 'integer'],
    ['cvtpd2dq', [0xf2, 0x0f, 0xe6], 'double'],
    ['cvttpd2dq', [0x66, 0x0f, 0xe6], 'double'],
  ];
  for (const [name, code, operand] of conversions)
    put(name, { code: [...code, 0xc1], result: 'xmm', operand });
  for (const [form, prefix] of [
    ['ss', 0xf3],
    ['sd', 0xf2],
  ] as const) {
    const operand = operandOf(form);
    for (const [size, rex] of [
      ['32', []],
      ['64', [0x48]],
    ] as const) {
      const integer = { result: 'xmm', memory: true, operand: 'integer' } as const;
      put('cvtsi2' + form + size, { code: [prefix, ...rex, 0x0f, 0x2a, 0x07], ...integer });
      put('cvt' + form + '2si' + size, { code: [prefix, ...rex, 0x0f, 0x2d, 0xc1], result: 'rax', operand });
      put('cvtt' + form + '2si' + size, { code: [prefix, ...rex, 0x0f, 0x2c, 0xc1], result: 'rax', operand });
    }
  }
  put('cvtpi2ps', { code: [0x0f, 0x2a, 0x07], result: 'xmm', memory: true, operand: 'integer' });
  put('cvtpi2pd', { code: [0x66, 0x0f, 0x2a, 0x07], result: 'xmm', memory: true, operand: 'integer' });
  put('cvtps2pi', { code: [0x0f, 0x2d, 0xc1], result: 'mm', operand: 'single' });
  put('cvttps2pi', { code: [0x0f, 0x2c, 0xc1], result: 'mm', operand: 'single' });
  put('cvtpd2pi', { code: [0x66, 0x0f, 0x2d, 0xc1], result: 'mm', operand: 'double' });
  put('cvttpd2pi', { code: [0x66, 0x0f, 0x2c, 0xc1], result: 'mm', operand: 'double' });
  return table;
}

const CASES = Number(process.env['FPU_CASES'] ?? 3000);
/** The answers are those of Intel's processors; others differ in last instruction pointers, approximations and the like. */
const comparable =
  process.arch === 'x64' &&
  spawnSync('gcc', ['--version']).status === 0 &&
  existsSync('/proc/cpuinfo') &&
  readFileSync('/proc/cpuinfo', 'utf8').includes('GenuineIntel');

/** MXCSR: mostly everything masked, often nothing else special, sometimes anything. */
function control(numbers: Numbers): number {
  const flags = numbers.below(3) === 0 ? numbers.below(64) : numbers.pick([0, 0x20]);
  switch (numbers.below(6)) {
    case 0:
      return 0x1f80 | flags;
    case 1:
      return 0x1f80 | flags | (numbers.below(4) << 13);
    case 2:
      return 0x1f80 | flags | (numbers.below(4) << 13) | 0x8040;
    case 3:
      // One exception is not masked.
      return (0x1f80 & ~(0x80 << numbers.below(6))) | flags | (numbers.below(4) << 13);
    default:
      return numbers.below(0x10000);
  }
}

function fill(numbers: Numbers, view: DataView, at: number, operand: Encoding['operand']): void {
  if (operand === 'single') for (let i = 0; i < 16; i += 4) view.setUint32(at + i, numbers.single(), true);
  else if (operand === 'double')
    for (let i = 0; i < 16; i += 8) view.setBigUint64(at + i, numbers.double(), true);
  else {
    for (let i = 0; i < 16; i += 8) {
      const shift = BigInt(numbers.below(64));
      const value = numbers.below(2) ? BigInt.asIntN(64, numbers.u64()) >> shift : numbers.u64() >> shift;
      view.setBigUint64(at + i, BigInt.asUintN(64, value), true);
    }
  }
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

describe.skipIf(!comparable)('SSE floating point against the host', () => {
  let directory = '';
  let program = '';
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'xenolith-fpu-'));
    program = join(directory, 'native');
    const built = spawnSync('gcc', ['-O2', '-o', program, join(import.meta.dirname, 'native.c')]);
    expect(String(built.stderr) + built.status).toBe('0');
  });
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  for (const [name, encoding] of encodings()) {
    it(name, () => {
      const numbers = new Numbers(SSE_FLOAT[name] + 1000 * Number(process.env['FPU_SEED'] ?? 1));
      const input = Records.empty(CASES);
      const immediates: number[] = [];
      for (let i = 0; i < CASES; i++) {
        const at = input.at(i);
        const imm = encoding.imm ? numbers.below(name.startsWith('cmp') ? 8 : 256) : 0;
        immediates.push(imm);
        input.setCode(i, encoding.imm ? [...encoding.code, imm] : encoding.code);
        input.view.setUint32(at + FX.mxcsr, control(numbers), true);
        fill(
          numbers,
          input.view,
          at + FX.xmm,
          encoding.result === 'xmm' && encoding.memory ? 'single' : encoding.operand,
        );
        fill(numbers, input.view, at + (encoding.memory ? RECORD.memory : FX.xmm + 16), encoding.operand);
        // Operands that are nearly the same.
        if (!encoding.memory && numbers.below(8) === 0) {
          const value = input.u64(i, FX.xmm);
          input.view.setBigUint64(at + FX.xmm + 16, numbers.near(value), true);
        }
        input.view.setBigUint64(at + RECORD.rax, 0x1122334455667788n, true);
      }
      const answer = spawnSync(program, { input: input.bytes, maxBuffer: 1 << 30 });
      expect(answer.status).toBe(0);
      const output = new Records(answer.stdout);
      expect(output.count).toBe(CASES);

      const memory = Memory.create(0x20000);
      const sse = new SseFloat(memory);
      const cpu = 0x1000;
      const mismatches: string[] = [];
      for (let i = 0; i < CASES; i++) {
        const before = input.state(i);
        memory.u8.set(before.subarray(FX.xmm, FX.xmm + 32), cpu + CPU.xmm);
        memory.u8.set(input.memory(i).subarray(0, 16), cpu + CPU.temp);
        const mxcsr = input.view.getUint32(input.at(i) + FX.mxcsr, true);
        memory.u32[(cpu + CPU.mxcsr) >>> 2] = mxcsr;
        const src = encoding.memory ? cpu + CPU.temp : cpu + CPU.xmm + 16;
        let dst = cpu + CPU.xmm;
        if (encoding.result === 'rax' || encoding.result === 'mm') {
          dst = cpu + CPU.temp + 32;
          memory.write64(dst, encoding.result === 'rax' ? 0x1122334455667788n : 0n);
        }
        const vector = sse.execute(SSE_FLOAT[name], cpu, dst, src, immediates[i]!);
        const after = output.state(i);
        const fault = output.signal(i) !== 0;
        let ours = hex(memory.u8.subarray(cpu + CPU.xmm, cpu + CPU.xmm + 16));
        let theirs = hex(after.subarray(FX.xmm, FX.xmm + 16));
        if (encoding.result === 'flags') {
          ours = vector === 0 ? memory.read32(dst).toString(16) : 'fault';
          theirs = fault ? 'fault' : (output.u64(i, RECORD.flags) & 0x8d5n).toString(16);
        } else if (encoding.result === 'rax') {
          ours = memory.read64(dst).toString(16);
          theirs = fault ? '1122334455667788' : output.u64(i, RECORD.rax).toString(16);
        } else if (encoding.result === 'mm') {
          ours = memory.read64(dst).toString(16);
          theirs = output.u64(i, FX.st).toString(16);
        }
        ours += ' ' + memory.read32(cpu + CPU.mxcsr).toString(16) + (vector === VECTOR.XM ? ' XM' : '');
        theirs +=
          ' ' + output.view.getUint32(output.at(i) + FX.mxcsr, true).toString(16) + (fault ? ' XM' : '');
        if (ours !== theirs) {
          const a = hex(before.subarray(FX.xmm, FX.xmm + 16));
          const b = hex(
            encoding.memory ? input.memory(i).subarray(0, 16) : before.subarray(FX.xmm + 16, FX.xmm + 32),
          );
          mismatches.push(
            `${a} ${b} mxcsr ${mxcsr.toString(16)} imm ${immediates[i]}: ${ours}, host ${theirs}`,
          );
        }
      }
      expect(mismatches.slice(0, 12), mismatches.length + ' mismatches').toEqual([]);
    });
  }
});
