import { describe, expect, it } from 'vitest';
import { BuildError } from '../dom0/builder/error.ts';
import { explain } from './explain.ts';
import { Failure } from './failure.ts';
import { UsageError } from './options.ts';

describe('explain', () => {
  it('says what foreseen errors say, in one line', () => {
    expect(explain(new Failure('no such file'))).toBe('no such file');
    expect(explain(new UsageError('a\n  b\n'))).toBe('a; b');
    expect(explain(new BuildError('not a kernel'))).toBe('not a kernel');
  });

  it('admits the others', () => {
    expect(explain(new TypeError('x is undefined'))).toBe('internal error: TypeError: x is undefined');
    expect(explain('odd')).toBe('internal error: odd');
  });
});
