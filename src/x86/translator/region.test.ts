import { expect, it } from 'vitest';
import { PAGE_SIZE } from '../../machine/memory.ts';
import { Decoder } from '../decoder.ts';
import { expandForms } from '../isa/form.ts';
import { definitions } from '../isa/index.ts';
import { RecordedCode, Recordings } from './code-view.ts';
import { findRegion } from './region.ts';

const CODE = 0x5555_5555_4000;
/** call rax; nop; ret. And: nop; ret. */
const CALLER = [0xff, 0xd0, 0x90, 0xc3];
const CALLEE = [0x90, 0xc3];

/** The wide region at CODE, whose call was seen to go to another page. */
function regionCalling(delta: number) {
  const page = (bytes: readonly number[], at: number) => {
    const whole = new Uint8Array(PAGE_SIZE);
    whole.set(bytes);
    return { delta: at, frame: 1, bytes: whole };
  };
  const code = {
    page: (at: number) => (at === 0 ? page(CALLER, 0) : at === delta ? page(CALLEE, at) : null),
  };
  const callee = CODE + delta * PAGE_SIZE;
  const trace = Float64Array.of(CODE, callee, callee + 1, CODE + 2, CODE + 3, CODE);
  const view = new RecordedCode(code, CODE, [new Recordings().of(trace)]);
  return findRegion(new Decoder(expandForms(definitions)), view, 0, new Set(), true)!;
}

it('takes in what an indirect call leads to', () => {
  const { pages, blocks } = regionCalling(5);
  expect(pages.map(({ delta }) => delta)).toEqual([0, 5]);
  expect(blocks.map(({ start }) => start)).toContain(5 * PAGE_SIZE);
});

it.each([2 ** 19, -(2 ** 19), 0x29aa_0000_0])('leaves for what is %d pages away', (delta) => {
  const { pages, blocks, entries } = regionCalling(delta);
  expect(pages.map((page) => page.delta)).toEqual([0]);
  expect(blocks.map(({ start }) => start)).toEqual([0, 2]);
  expect(entries).toHaveLength(2);
});
