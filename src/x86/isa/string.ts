/**
 * String instructions. Each run does one iteration; with a repeat prefix it goes on within the pages it has checked
 * and saves RCX, RSI and RDI as it goes, so that a fault or an interrupt finds exact state.
 */
import { type I32, type I64, i32, i64, type Label } from '../../wasm/index.ts';
import { CPU, RAX, RCX, RDI, RSI } from '../state.ts';
import { subtract } from './arithmetic.ts';
import type { Definition } from './definition.ts';
import { hexByte } from './encoding.ts';
import type { Semantics } from './semantics.ts';

/** Iterations of one run before the processor looks around again. */
const BURST = 1 << 14;

const stepOf = (c: Semantics, bytes: number): I64 => i64.mul(i64.extend_s(i32.load(c.cpu, CPU.df)), bytes);

/** Sets an index register to a value within the address size (upper half zeroed under a 67 prefix). */
const setIndex = (c: Semantics, register: number, value: I64) => c.setReg(register, value);

/**
 * One iteration, or many under a repeat prefix. `once` moves RSI and RDI. `stop` says after each iteration whether
 * REPE or REPNE ends. `bulk`, given the count of iterations wanted, may do several at once and returns how many
 * (0: none).
 */
function repeated(
  c: Semantics,
  registers: readonly number[],
  once: () => void,
  stop?: () => I32,
  bulk?: (count: I64) => I64,
  pause?: () => void,
): void {
  const { f } = c;
  if (c.form.repeat === '') {
    once();
    return;
  }
  const mask = f.let(c.addressMask());
  // Under an address-size prefix the registers lose their upper halves even if nothing is done.
  f.if(i64.ne(mask, -1), () => {
    for (const register of [RCX, ...registers]) c.setReg(register, i64.and(c.reg(register), mask));
  });
  const left = f.let(i32.const(BURST));
  f.if(i32.load(c.cpu, CPU.stepping), () => f.set(left, i32.const(1)));
  f.block((done: Label) => {
    f.loop((next) => {
      const count = f.let(i64.and(c.reg(RCX), mask));
      f.brIf(i64.eqz(count), done);
      if (bulk !== undefined) {
        f.if(i32.eqz(i32.load(c.cpu, CPU.stepping)), () => {
          const did = f.let(bulk(count));
          f.if(i64.ne(did, 0), () => {
            setIndex(c, RCX, i64.sub(count, did));
            f.set(left, i32.sub(left, 64));
            f.brIf(i32.gt_s(left, 0), next);
            f.if(i64.eq(count, did), () => f.br(done));
            pause?.();
            c.again();
          });
        });
      }
      once();
      setIndex(c, RCX, i64.and(i64.sub(count, 1), mask));
      if (stop !== undefined) f.brIf(stop(), done);
      f.brIf(i64.eq(count, 1), done);
      f.set(left, i32.sub(left, 1));
      f.brIf(i32.gt_s(left, 0), next);
    });
    pause?.();
    c.again();
  });
}

const source = (c: Semantics): I64 => c.f.let(i64.add(c.segmentBase(), i64.and(c.reg(RSI), c.addressMask())));
const destination = (c: Semantics): I64 => c.f.let(i64.and(c.reg(RDI), c.addressMask()));
const advance = (c: Semantics, register: number, bytes: number) =>
  setIndex(c, register, i64.and(i64.add(c.reg(register), stepOf(c, bytes)), c.addressMask()));

/** Bytes from an address to the end of its page. */
const toPageEnd = (va: I64): I64 => i64.sub(0x1000, i64.and(va, 0xfff));

/** min(count, whole elements before the page's end), at least 0. */
function within(c: Semantics, count: I64, va: I64, bytes: number): I64 {
  const { f } = c;
  const n = f.let(i64.shr_u(toPageEnd(va), Math.log2(bytes)));
  f.if(i64.lt_u(count, n), () => f.set(n, count));
  return n;
}

const forward = (c: Semantics): I32 => i32.gt_s(i32.load(c.cpu, CPU.df), 0);

const sizeOf = (c: Semantics, byte: boolean) => (byte ? 8 : c.size);

const movs = (byte: boolean) => (c: Semantics) => {
  const { f } = c;
  const bits = sizeOf(c, byte);
  const bytes = bits / 8;
  repeated(
    c,
    [RSI, RDI],
    () => {
      const value = f.let(c.load(source(c), bits));
      c.store(destination(c), bits, value);
      advance(c, RSI, bytes);
      advance(c, RDI, bytes);
    },
    undefined,
    (count) => {
      const n = f.let(i64.const(0));
      f.if(forward(c), () => {
        const from = source(c);
        const to = destination(c);
        f.set(n, within(c, within(c, count, from, bytes), to, bytes));
        f.if(i64.ne(n, 0), () => {
          const length = f.let(i64.mul(n, bytes));
          const a = f.let(c.lookup(from, 1, false));
          const b = f.let(c.lookup(to, 1, true));
          // A destination that starts within the source repeats what it wrote: not what a bulk copy does.
          // An intercepted store (in scratch) is done singly as well.
          const overlap = i32.lt_u(i32.sub(b, i32.add(a, 1)), i32.sub(i32.wrap(length), 1));
          const scratch = i32.eq(b, i32.add(c.cpu, CPU.scratch));
          f.if(
            i32.or(overlap, scratch),
            () => f.set(n, i64.const(0)),
            () => {
              f.memoryCopy(b, a, i32.wrap(length));
              setIndex(c, RSI, i64.and(i64.add(c.reg(RSI), length), c.addressMask()));
              setIndex(c, RDI, i64.and(i64.add(c.reg(RDI), length), c.addressMask()));
            },
          );
        });
      });
      return n;
    },
  );
};

const stos = (byte: boolean) => (c: Semantics) => {
  const { f } = c;
  const bits = sizeOf(c, byte);
  const bytes = bits / 8;
  repeated(
    c,
    [RDI],
    () => {
      c.store(destination(c), bits, c.reg(RAX));
      advance(c, RDI, bytes);
    },
    undefined,
    (count) => {
      const n = f.let(i64.const(0));
      const value = f.let(c.regPart(RAX, bits));
      // memory.fill repeats one byte.
      const repeatedByte = i64.mul(i64.and(value, 0xff), i64.const(0x0101010101010101n));
      const uniform = i64.eq(value, c.sext(repeatedByte, bits));
      f.if(i32.and(forward(c), uniform), () => {
        const to = destination(c);
        f.set(n, within(c, count, to, bytes));
        f.if(i64.ne(n, 0), () => {
          const length = f.let(i64.mul(n, bytes));
          const b = f.let(c.lookup(to, 1, true));
          f.if(
            i32.eq(b, i32.add(c.cpu, CPU.scratch)),
            () => f.set(n, i64.const(0)),
            () => {
              f.memoryFill(b, i32.wrap(i64.and(value, 0xff)), i32.wrap(length));
              setIndex(c, RDI, i64.and(i64.add(c.reg(RDI), length), c.addressMask()));
            },
          );
        });
      });
      return n;
    },
  );
};

const lods = (byte: boolean) => (c: Semantics) => {
  const bits = sizeOf(c, byte);
  repeated(c, [RSI], () => {
    c.setRegPart(RAX, bits, c.f.let(c.load(source(c), bits)));
    advance(c, RSI, bits / 8);
  });
};

/**
 * CMPS and SCAS. Flags are those of the last comparison, stored when the instruction ends: a fault in a later
 * iteration finds those from before the instruction.
 */
const comparing =
  (registers: readonly number[], operands: (c: Semantics, bits: number) => [I64, I64]) =>
  (byte: boolean) =>
  (c: Semantics) => {
    const { f } = c;
    const bits = sizeOf(c, byte);
    const a = f.local('i64');
    const b = f.local('i64');
    const compared = f.let(i32.const(0));
    const flags = () => f.if(compared, () => void subtract(c, a, b, bits));
    repeated(
      c,
      registers,
      () => {
        const [x, y] = operands(c, bits);
        f.set(a, x);
        f.set(b, y);
        f.set(compared, i32.const(1));
        for (const register of registers) advance(c, register, bits / 8);
      },
      () => (c.form.repeat === 'rep' ? i64.ne(a, b) : i64.eq(a, b)),
      undefined,
      flags,
    );
    flags();
  };

// Intel's processors read through RDI first.
const cmps = comparing([RSI, RDI], (c, bits) => {
  const second = c.f.let(c.load(destination(c), bits));
  return [c.load(source(c), bits), second];
});

const scas = comparing([RDI], (c, bits) => [c.regPart(RAX, bits), c.load(destination(c), bits)]);

function pair(name: string, opcode: number, make: (byte: boolean) => (c: Semantics) => void): Definition[] {
  return [
    { name: `${name}B`, code: hexByte(opcode), rep: true, exec: make(true) },
    { name, code: hexByte(opcode + 1), rep: true, sizes: 'v', exec: make(false) },
  ];
}

export const string: Definition[] = [
  ...pair('MOVS', 0xa4, movs),
  ...pair('CMPS', 0xa6, cmps),
  ...pair('STOS', 0xaa, stos),
  ...pair('LODS', 0xac, lods),
  ...pair('SCAS', 0xae, scas),
];
