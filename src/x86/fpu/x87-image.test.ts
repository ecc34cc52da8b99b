import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Memory } from '../../machine/memory.ts';
import { CPU, VECTOR } from '../state.ts';
import { FX, Numbers, RECORD, Records } from './native.ts';
import { X87 } from './x87.ts';

const CASES = Number(process.env['FPU_CASES'] ?? 300);
/** The answers are those of Intel's processors; others differ in last instruction pointers, approximations and the like. */
const comparable =
  process.arch === 'x64' &&
  spawnSync('gcc', ['--version']).status === 0 &&
  existsSync('/proc/cpuinfo') &&
  readFileSync('/proc/cpuinfo', 'utf8').includes('GenuineIntel');

const CPU_ADDRESS = 0x1000;
const AREA = 0x4000;
const OPERAND = 0x5000;

interface Operation {
  readonly name: string;
  readonly code: readonly number[];
  readonly run: (x87: X87, memory: Memory) => number;
}

const OPERATIONS: readonly Operation[] = [
  {
    name: 'FXSAVE',
    code: [0x0f, 0xae, 0x07],
    run: (x87) => {
      x87.fxsave(CPU_ADDRESS, OPERAND, false);
      return 0;
    },
  },
  {
    name: 'FXSAVE64',
    code: [0x48, 0x0f, 0xae, 0x07],
    run: (x87) => {
      x87.fxsave(CPU_ADDRESS, OPERAND, true);
      return 0;
    },
  },
  { name: 'FXRSTOR', code: [0x0f, 0xae, 0x0f], run: (x87) => x87.fxrstor(CPU_ADDRESS, OPERAND, false) },
  {
    name: 'FXRSTOR64',
    code: [0x48, 0x0f, 0xae, 0x0f],
    run: (x87) => x87.fxrstor(CPU_ADDRESS, OPERAND, true),
  },
  {
    name: 'LDMXCSR',
    code: [0x0f, 0xae, 0x17],
    run: (x87, memory) => x87.ldmxcsr(CPU_ADDRESS, memory.read32(OPERAND)),
  },
  {
    name: 'EMMS',
    code: [0x0f, 0x77],
    run: (x87) => {
      const vector = x87.checkPending(CPU_ADDRESS);
      if (vector === 0) x87.emms(CPU_ADDRESS);
      return vector;
    },
  },
  {
    name: 'an MMX instruction (PXOR MM3, MM3)',
    code: [0x0f, 0xef, 0xdb],
    run: (x87, memory) => {
      const vector = x87.checkPending(CPU_ADDRESS);
      if (vector !== 0) return vector;
      memory.write64(CPU_ADDRESS + CPU.st + 48, 0n);
      memory.write16(CPU_ADDRESS + CPU.st + 56, 0xffff);
      x87.mmxEnter(CPU_ADDRESS);
      return 0;
    },
  },
];

/** An image that FXRSTOR takes, mostly. */
function image(numbers: Numbers, view: DataView, at: number): void {
  for (let i = 0; i < 512; i += 4) view.setUint32(at + i, numbers.u32(), true);
  // How many bits of the last instruction pointer a processor keeps is its own affair (48 or 57, sign-extended).
  view.setUint16(at + FX.fip + 6, 0, true);
  view.setUint8(at + FX.fip + 5, numbers.below(0x80));
  const mxcsr = numbers.below(8) === 0 ? numbers.u32() : numbers.below(0x10000);
  view.setUint32(at + FX.mxcsr, mxcsr, true);
  if (numbers.below(2)) {
    const control = numbers.below(2) ? 0x37f : numbers.below(0x10000);
    view.setUint16(at + FX.fcw, control, true);
  }
}

describe.skipIf(!comparable)('x87 and SSE state images against the host', () => {
  let directory = '';
  let program = '';
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'xenolith-fpu-'));
    program = join(directory, 'native');
    const built = spawnSync('gcc', ['-O2', '-o', program, join(import.meta.dirname, 'native.c')]);
    expect(String(built.stderr) + built.status).toBe('0');
  });
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  for (const { name, code, run } of OPERATIONS) {
    it(name, () => {
      const numbers = new Numbers(code[2]! + 17);
      const input = Records.empty(CASES);
      for (let i = 0; i < CASES; i++) {
        const at = input.at(i);
        image(numbers, input.view, at);
        input.view.setUint32(at + FX.mxcsr, numbers.below(0x10000), true);
        // Registers hold 80 bits, the rest of the image is reserved.
        for (let k = 0; k < 8; k++) input.bytes.fill(0, at + FX.st + 16 * k + 10, at + FX.st + 16 * k + 16);
        input.bytes.fill(0, at + 416, at + 512);
        image(numbers, input.view, at + RECORD.memory);
        if (name === 'LDMXCSR') {
          const value = numbers.below(2) ? numbers.below(0x10000) : numbers.u32() >>> numbers.below(32);
          input.view.setUint32(at + RECORD.memory, value, true);
        }
        input.setCode(i, code);
      }
      const answer = spawnSync(program, { input: input.bytes, maxBuffer: 1 << 30 });
      expect(answer.status).toBe(0);
      const host = new Records(answer.stdout);
      const memory = Memory.create(0x20000);
      const x87 = new X87(memory);
      for (let i = 0; i < CASES; i++) {
        memory.u8.set(input.state(i), AREA);
        expect(x87.fxrstor(CPU_ADDRESS, AREA, true)).toBe(0);
        memory.u8.set(input.memory(i), OPERAND);
        const vector = run(x87, memory);
        const signal = host.signal(i);
        expect(vector).toBe(signal === 11 ? VECTOR.GP : signal === 8 ? VECTOR.MF : signal);
        memory.u8.fill(0, AREA, AREA + 512);
        x87.fxsave(CPU_ADDRESS, AREA, true);
        const state = Buffer.from(memory.u8.slice(AREA, AREA + 416)).toString('hex');
        expect(state, `case ${i}`).toBe(Buffer.from(host.state(i).subarray(0, 416)).toString('hex'));
        const operand = Buffer.from(memory.u8.slice(OPERAND, OPERAND + 512)).toString('hex');
        expect(operand, `case ${i}`).toBe(Buffer.from(host.memory(i)).toString('hex'));
      }
    });
  }
});
