/** RFLAGS put together and taken apart in WebAssembly; the same rules as in Cpu.rflags (see state.ts). */
import { type Func, i32, i64, type ModuleBuilder, select } from '../../wasm/index.ts';
import { CPU, FLAG, STATUS_FLAGS } from '../state.ts';

const STATUS = STATUS_FLAGS | FLAG.DF;

/** (cpu) -> RFLAGS. */
export function buildGetFlags(module: ModuleBuilder): Func {
  const f = module.func('getFlags', ['i32'], ['i32']);
  const cpu = f.arg('i32', 0);
  const parity = i32.and(i32.xor(i32.popcnt(i32.load8u(cpu, CPU.spres)), 1), 1);
  const bits = [
    i32.or(i32.and(i32.load(cpu, CPU.rflags), ~STATUS), FLAG.ONE),
    i32.load(cpu, CPU.cf),
    i32.shl(parity, 2),
    i32.and(i32.load(cpu, CPU.af), FLAG.AF),
    i32.shl(i64.eqz(i64.load(cpu, CPU.zres)), 6),
    i32.shl(i32.shr_u(i32.load(cpu, CPU.spres + 4), 31), 7),
    i32.shl(i32.shr_u(i32.load(cpu, CPU.df), 31), 10),
    i32.shl(i32.shr_u(i32.load(cpu, CPU.of + 4), 31), 11),
  ];
  f.result(bits.reduce((all, bit) => i32.or(all, bit)));
  return f;
}

/** (cpu, value, mask): the flags in the mask become those of the value. */
export function buildSetFlags(module: ModuleBuilder): Func {
  const f = module.func('setFlags', ['i32', 'i32', 'i32'], []);
  const cpu = f.arg('i32', 0);
  const value = f.arg('i32', 1);
  const mask = f.arg('i32', 2);
  const old = f.let(i32.and(i32.load(cpu, CPU.rflags), i32.xor(mask, -1)));
  f.store(cpu, i32.or(i32.and(i32.or(old, i32.and(value, mask)), ~STATUS), FLAG.ONE), CPU.rflags);
  f.if(i32.and(mask, FLAG.CF), () => f.store(cpu, i32.and(value, 1), CPU.cf));
  f.if(i32.and(mask, FLAG.AF), () => f.store(cpu, value, CPU.af));
  f.if(i32.and(mask, FLAG.ZF), () => f.store(cpu, i64.extend_u(i32.eqz(i32.and(value, FLAG.ZF))), CPU.zres));
  f.if(i32.and(mask, FLAG.SF | FLAG.PF), () => {
    // Low byte: 0 has even parity, 1 odd. Each of the two that is not in the mask keeps its old value.
    const oldWord = f.let(i64.load(cpu, CPU.spres));
    const oldOdd = i64.and(i64.popcnt(i64.and(oldWord, 0xff)), 1);
    const odd = select(i32.and(mask, FLAG.PF), i64.extend_u(i32.eqz(i32.and(value, FLAG.PF))), oldOdd);
    const sign = select(
      i32.and(mask, FLAG.SF),
      i64.shl(i64.extend_u(i32.and(value, FLAG.SF)), 56),
      i64.and(oldWord, i64.const(-(1n << 63n))),
    );
    f.store(cpu, i64.or(sign, odd), CPU.spres);
  });
  f.if(i32.and(mask, FLAG.DF), () => f.store(cpu, i32.sub(1, i32.shr_u(i32.and(value, FLAG.DF), 9)), CPU.df));
  f.if(i32.and(mask, FLAG.OF), () =>
    f.store(cpu, i64.shl(i64.extend_u(i32.and(value, FLAG.OF)), 52), CPU.of),
  );
  return f;
}
