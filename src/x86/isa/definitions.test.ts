import { expect, test } from 'vitest';
import { buildInterpreter } from '../interpreter/build.ts';
import type { Definition } from './definition.ts';
import { parseEncoding, parseOperands } from './encoding.ts';
import { rmOperand } from './form.ts';
import { definitions } from './index.ts';

/** The ModRM bytes that an encoding takes. */
function modrmBytes(definition: Definition): number[] {
  const { modrm, modrmByte } = parseEncoding(definition.code);
  const kind = rmOperand(parseOperands(definition.operands))?.kind;
  const onlyMemory = kind === 'M';
  const onlyRegister = definition.modrmRegister === true || ['R', 'U', 'N'].includes(kind ?? '');
  return Array.from({ length: 256 }, (_, byte) => byte).filter((byte) => {
    if (modrm === null) return true;
    if (modrm === 'fixed') return byte === modrmByte;
    if (modrm !== 'r' && ((byte >> 3) & 7) !== modrm) return false;
    return byte >= 0xc0 ? !onlyMemory : !onlyRegister;
  });
}

test('no two definitions claim the same bytes', () => {
  const owners = new Map<string, Definition>();
  for (const definition of definitions) {
    const { map, opcode, prefix, rexW, plusRegister, modrm } = parseEncoding(definition.code);
    for (let i = 0; i < (plusRegister ? 8 : 1); i++)
      for (const byte of modrmBytes(definition)) {
        // A fixed ModRM byte and REX.W are preferred to the general encoding; NOP is told from XCHG by REX.B.
        const key = [map, opcode + i, prefix, rexW, plusRegister, modrm === 'fixed', byte].join();
        const other = owners.get(key);
        if (other !== undefined)
          expect.fail(`${other.name} ${other.code} and ${definition.name} ${definition.code}`);
        owners.set(key, definition);
      }
  }
});

test('every form emits valid WebAssembly', () => {
  const { bytes, forms } = buildInterpreter(definitions, 16);
  expect(WebAssembly.validate(bytes)).toBe(true);
  expect(forms.length).toBeGreaterThan(1500);
});
