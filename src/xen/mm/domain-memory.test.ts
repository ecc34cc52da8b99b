import { describe, expect, it } from 'vitest';
import { Frames } from '../../machine/frames.ts';
import { Memory } from '../../machine/memory.ts';
import { HypercallError } from '../hypercall.ts';
import { DomainMemory } from './domain-memory.ts';
import { FrameType } from './frame-table.ts';
import { FIRST_MFN, frameLayout } from './layout.ts';
import { SharedFrames } from './shared-frames.ts';
import { boot, emptyMachine, poke, testMachine } from './testing.ts';

/** Free frames of such a machine if the domain had no memory: its one vCPU's state aside. */
const pristine = emptyMachine(8).free - 1;

describe('frame numbers', () => {
  it('cover their own table, whatever the size', () => {
    for (const pages of [1, 255, 8192, 32768, 262144, 1048576]) {
      const { ramEnd, xenEnd, m2pFrames, m2pL1, m2pL2, limit } = frameLayout(pages);
      expect(ramEnd - FIRST_MFN).toBeGreaterThanOrEqual(pages);
      expect(limit).toBeGreaterThanOrEqual(xenEnd + m2pFrames + m2pL1 + m2pL2 + 1);
      expect(m2pFrames * 512).toBeGreaterThanOrEqual(limit);
      expect(m2pL1 * 512).toBeGreaterThanOrEqual(m2pFrames);
      // No more than it takes.
      expect(m2pFrames * 512 - limit).toBeLessThan(512 + 8);
    }
  });

  it('are not the machine’s', () => {
    const { domain, frames } = testMachine();
    const mfns = domain.memory.populate(10);
    expect(mfns).toEqual(Array.from({ length: 10 }, (_, i) => FIRST_MFN + i));
    expect(new Set(mfns.map((mfn) => domain.memory.machineFrame(mfn))).size).toBe(10);
    for (const mfn of [-1, 0, FIRST_MFN + 10, 2 ** 31, 2 ** 40, Number.NaN, 0.5]) {
      expect(domain.memory.owns(mfn)).toBe(false);
      expect(domain.memory.linear(mfn) || 0).toBe(0);
    }
    expect(frames.free).toBeGreaterThan(0);
  });
});

describe('a domain’s memory', () => {
  it('is refused beyond its maximum and beyond the machine, entirely', () => {
    const { domain, frames } = testMachine({ maxPages: 10_000 });
    const { memory } = domain;
    const free = frames.free;
    expect(() => memory.populate(10_001)).toThrow('ENOMEM');
    expect(() => memory.populate(-1)).toThrow('ENOMEM');
    expect(() => memory.populate(free + 1)).toThrow('ENOMEM');
    expect(frames.free).toBe(free);
    expect(memory.totalPages).toBe(0);
    expect(memory.checkInvariants()).toEqual([]);
  });

  it('fails to be made without a trace where the machine is too small', () => {
    const { domain } = testMachine();
    const { processor } = domain.hypervisor;
    for (const kilobytes of [64, 128, 256]) {
      const frames = new Frames(Memory.create(kilobytes * 1024));
      const shared = new SharedFrames(frames);
      const { free } = frames;
      expect(() => new DomainMemory(domain, frames, () => processor, 8192, shared)).toThrow(HypercallError);
      expect(frames.free).toBe(free);
    }
  });

  it('is all given back at its end', () => {
    const machine = testMachine();
    boot(machine, 64);
    const { memory } = machine.domain;
    memory.addXenFrame(machine.frames.alloc(), { writable: true, guestMappable: true });
    memory.destroy();
    memory.destroy();
    // The frame that was added is its owner's.
    expect(machine.frames.free).toBe(pristine - 1);
    expect(memory.linear(FIRST_MFN)).toBe(0);
  });

  it('stays behind as far as others hold it', () => {
    const machine = testMachine();
    const { free } = boot(machine, 64);
    const { memory } = machine.domain;
    memory.getPage(free[0]!);
    memory.getPage(free[0]!);
    memory.getPageType(free[1]!, FrameType.writable);
    expect(memory.checkInvariants()).toEqual([]);
    const linear = memory.linear(free[0]!);
    machine.memory.u8[linear] = 7;
    memory.destroy();
    expect(machine.memory.u8[linear]).toBe(7);
    expect(machine.frames.free).toBeLessThan(pristine - 2);
    memory.putPage(free[0]!);
    memory.putPageType(free[1]!);
    expect(machine.memory.u8[linear]).toBe(7);
    memory.putPage(free[0]!);
    expect(machine.memory.u8[linear]).toBe(0);
    expect(machine.frames.free).toBe(pristine);
  });

  it('knows who puts more than they got', () => {
    const machine = testMachine();
    const { free } = boot(machine, 64);
    const { memory } = machine.domain;
    memory.getPage(free[0]!);
    expect(() => memory.putPageType(free[0]!)).toThrow(RangeError);
    expect(() => memory.getPage(memory.sharedInfoMfn)).toThrow('EINVAL');
    expect(() => memory.getPageType(free[0]!, FrameType.l1)).toThrow('EBUSY');
  });

  it('checks descriptor tables, and keeps them from being written', () => {
    const machine = testMachine();
    const { memory } = machine.domain;
    const [gdt, other] = memory.populate(2) as [number, number];
    // A call gate.
    poke(memory, gdt, 3, 0, 0x0000ec00);
    expect(() => memory.getPageType(gdt, FrameType.segdesc)).toThrow('EINVAL');
    poke(memory, gdt, 3, 0xffff, 0x00affa00);
    memory.getPageType(gdt, FrameType.segdesc);
    expect(() => memory.getPageType(gdt, FrameType.writable)).toThrow('EBUSY');
    expect(memory.pin(gdt, FrameType.l1)).toBeLessThan(0);
    memory.getPageType(other, FrameType.writable);
    expect(memory.checkInvariants()).toEqual([]);
    memory.putPageType(gdt);
    memory.getPageType(gdt, FrameType.writable);
  });
});
