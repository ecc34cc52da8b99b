import { describe, expect, it } from 'vitest';
import { Memory } from './memory.ts';

describe('bytes of the machine’s memory', () => {
  it('are copied, however the two places lie, and nothing beside them', () => {
    const memory = Memory.create(1 << 17);
    const { u8 } = memory;
    for (let at = 0; at < 4096; at++) u8[0x1000 + at] = at * 7;
    for (const [skew, start, length] of [
      [0, 0, 4096],
      [1, 3, 1000],
      [66, 192, 3904],
      [5, 5, 0],
      [7, 0, 1],
    ] as const) {
      u8.fill(0xee, 0x8000, 0xa000);
      memory.copy(0x8800 + skew, 0x1000 + start, length);
      expect(u8.slice(0x8800 + skew, 0x8800 + skew + length)).toEqual(
        u8.slice(0x1000 + start, 0x1000 + start + length),
      );
      expect([u8[0x87ff + skew], u8[0x8800 + skew + length]]).toEqual([0xee, 0xee]);
    }
  });

  it('that overlap arrive as they were', () => {
    const memory = Memory.create(1 << 17);
    for (let at = 0; at < 100; at++) memory.u8[0x1000 + at] = at;
    memory.copy(0x1003, 0x1000, 100);
    expect([...memory.u8.slice(0x1003, 0x1067)]).toEqual(Array.from({ length: 100 }, (_, at) => at));
  });

  it('lie beyond 2 GiB too', () => {
    const memory = Memory.create(0x9000_0000);
    memory.u8[0x8800_0001] = 5;
    memory.copy(0x8f00_0003, 0x8800_0001, 1);
    expect(memory.u8[0x8f00_0003]).toBe(5);
  });

  it('outside of it are not', () => {
    const memory = Memory.create(1 << 17);
    expect(() => memory.copy(0, memory.size - 1, 2)).toThrow();
  });
});
