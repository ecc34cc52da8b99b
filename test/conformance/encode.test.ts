/** The encoder here and the decoder of the processor are inverses: what one writes the other reads as the same form. */
import { expect, test } from 'vitest';
import { Decoder } from '../../src/x86/decoder.ts';
import { definitions } from '../../src/x86/isa/index.ts';
import { CPU } from '../../src/x86/state.ts';
import { chooseInstruction, describe } from './instruction.ts';
import { Random } from './random.ts';
import { allVariants } from './variants.ts';
import { PLACE } from './wire.ts';

const LONGEST = 15;

test('every form decodes to itself', () => {
  const { variants } = allVariants(definitions);
  const decoder = new Decoder([...new Set(variants.map(({ form }) => form))]);
  const random = new Random('encode');
  const wrong: string[] = [];
  let count = 0;
  for (const variant of variants) {
    for (let i = 0; i < 4; i++) {
      const instruction = chooseInstruction(random, variant, PLACE.dataBase);
      const { bytes, choice } = instruction;
      const got = decoder.decode((offset) => bytes[offset] ?? -1);
      count++;
      const { form } = variant;
      // Encodings that do not exist: a bad LOCK, control and debug registers, segment registers.
      if (got?.form === null && (variant.badLock || bytes.length > LONGEST || form.encoding.modrm === 'r'))
        continue;
      const same = got !== null && got.form === form && got.length === bytes.length;
      if (!same) {
        wrong.push(`${describe(instruction)}: read as ${got?.name ?? 'nothing'}, ${got?.length} bytes`);
        continue;
      }
      const { address } = choice;
      if (!form.memory) continue;
      const base = address.ripRelative ? CPU.page : address.base < 0 ? CPU.zero : CPU.regs + 8 * address.base;
      const index = address.index < 0 ? CPU.zero : CPU.regs + 8 * address.index;
      const segment = choice.segment === 'none' ? -1 : choice.segment === 'fs' ? CPU.fsBase : CPU.gsBase;
      const displacement = address.ripRelative ? address.displacement - bytes.length : address.displacement;
      if (got.rm !== base || got.index !== index || got.displacement !== displacement) {
        wrong.push(`${describe(instruction)}: another address`);
      }
      if (index !== CPU.zero && 1 << got.scale !== address.scale)
        wrong.push(`${describe(instruction)}: scale`);
      if (segment >= 0 && got.segment !== segment) wrong.push(`${describe(instruction)}: segment`);
      if (got.address32 !== choice.address32) wrong.push(`${describe(instruction)}: address size`);
    }
  }
  expect(wrong.slice(0, 20)).toEqual([]);
  expect(count).toBeGreaterThan(20_000);
});
