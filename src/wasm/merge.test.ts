import { describe, expect, it } from 'vitest';
import { BRANCH_HINTS } from './binary.ts';
import { call, i32, ModuleBuilder, mergeModules } from './index.ts';

const nameOf = (i: number) => `f${i}`;
/** What a function of {@link adding} makes of 0 if its number is odd. */
const NONE = -1;

interface Shape {
  readonly imports?: readonly string[];
  /** How many functions are exported. */
  readonly exported?: number;
}

/** Functions that add a number to what the host makes of their argument. Odd ones have a branch that is hinted. */
function adding(numbers: readonly number[], { imports = ['twice'], exported }: Shape = {}): Uint8Array {
  const module = new ModuleBuilder(1);
  const [twice] = imports.map((name) => module.import(name, ['i32'], ['i32']));
  for (const [i, number] of numbers.entries()) {
    const f = module.func(`add${number}`, ['i32'], ['i32']);
    const result = f.let(i32.add(call('i32', twice!, f.arg('i32', 0)), i32.const(number)));
    const none = () => f.set(result, i32.const(NONE));
    if (number % 2 === 1) f.if(i32.eqz(f.arg('i32', 0)), none, undefined, false);
    f.return(result);
    if (i < (exported ?? numbers.length)) module.export(nameOf(i), f);
  }
  return module.encode();
}

function functionsOf(module: Uint8Array): ((x: number) => number)[] {
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
  const env = { memory, twice: (x: number) => 2 * x };
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(module), { env });
  return Object.keys(exports).map((_, i) => exports[nameOf(i)] as (x: number) => number);
}

const numbersOf = (module: Uint8Array) => functionsOf(module).map((f) => f(10) - 20);

describe('modules made into one', () => {
  it('have all their functions, in their order', () => {
    const merged = mergeModules([adding([3]), adding([200, 5, 70000]), adding([8])], nameOf)!;
    expect(numbersOf(merged)).toEqual([3, 200, 5, 70000, 8]);
    expect(functionsOf(merged).map((f) => f(0))).toEqual([NONE, 200, NONE, 70000, 8]);
  });

  it('can be merged again', () => {
    const merged = mergeModules([adding([1, 2]), adding([3])], nameOf)!;
    expect(numbersOf(mergeModules([merged, adding([4])], nameOf)!)).toEqual([1, 2, 3, 4]);
  });

  it('are what they would be if they had been built as one, hints and all, without names', () => {
    const merged = mergeModules([adding([2, 3]), adding([4, 5])], nameOf);
    const built = adding([2, 3, 4, 5]);
    // Names stand at the end.
    expect(merged).toEqual(built.subarray(0, merged!.length));
    const rest = [...built.subarray(merged!.length)];
    expect([rest[0], ...rest.slice(2, 7)]).toEqual([0, 4, ...Buffer.from('name')]);
    expect(Buffer.from(merged!).includes(BRANCH_HINTS)).toBe(true);
  });

  it('are not, if they do not fit together', () => {
    expect(mergeModules([], nameOf)).toBeNull();
    expect(mergeModules([adding([1]), adding([2], { imports: ['twice', 'more'] })], nameOf)).toBeNull();
    expect(mergeModules([adding([1]), adding([2, 3], { exported: 1 })], nameOf)).toBeNull();
  });
});
