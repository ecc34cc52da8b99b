import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ELFNOTE } from '../../xen/public/elfnote.ts';
import { planDomain } from './build.ts';
import { BuildError } from './error.ts';
import { readKernel, unpackKernel } from './image.ts';
import { makeBzImage, makeElf, makeNotes, TEST_BASE, type TestSection, testKernel } from './test-kernels.ts';

const BASE = Number(TEST_BASE) - 2 ** 64;
const code = new Uint8Array(4096).fill(0x90);
const load = { pa: 0x100000n, bytes: code, memorySize: 0x3000 };
const notes: [number, bigint | string | number][] = [
  [ELFNOTE.VIRT_BASE, TEST_BASE],
  [ELFNOTE.ENTRY, TEST_BASE + 0x100000n],
  [ELFNOTE.GUEST_OS, 'test'],
];

/** What a kernel is refused with; fails if it is not refused, or in another way. */
function refusal(file: Uint8Array): string {
  try {
    readKernel(unpackKernel(file));
  } catch (error) {
    expect(error).toBeInstanceOf(BuildError);
    const { message } = error as Error;
    expect(message).not.toMatch(/\n|\.$/);
    return message;
  }
  throw new Error('the kernel was accepted');
}

function legacy(text: string): TestSection {
  return { name: '__xen_guest', type: 1, bytes: new TextEncoder().encode(`${text}\0`) };
}

describe('the ways in which a kernel describes itself', () => {
  it('notes in a PT_NOTE segment, between those of others', () => {
    const gnu = makeNotes([[3, 'build id']], 'GNU');
    const xen = makeNotes([
      ...notes,
      [ELFNOTE.FEATURES, '!writable_page_tables|pae_pgdir_above_4gb'],
      [ELFNOTE.SUSPEND_CANCEL, 1],
      [ELFNOTE.PADDR_OFFSET, 0n],
    ]);
    const both = new Uint8Array([...gnu, ...xen]);
    const kernel = readKernel(makeElf({ segments: [load, { type: 4, pa: 0n, bytes: both }] }));
    expect(kernel.description).toMatchObject({
      source: 'PT_NOTE',
      guestOs: 'test',
      entry: BASE + 0x100000,
      virtBase: BASE,
      paddrOffset: 0,
      hypercallPage: null,
      initP2m: null,
      modStartPfn: false,
      suspendCancel: true,
      requiredFeatures: ['writable_page_tables'],
      supportedFeatures: ['writable_page_tables', 'pae_pgdir_above_4gb'],
    });
    expect([kernel.start, kernel.end]).toEqual([0x100000, 0x103000]);
  });

  it('notes in a section only', () => {
    const kernel = readKernel(
      makeElf({ segments: [load], sections: [{ name: '.note.Xen', type: 7, bytes: makeNotes(notes) }] }),
    );
    expect(kernel.description).toMatchObject({ source: 'SHT_NOTE', virtBase: BASE });
  });

  it('a legacy string: physical addresses are virtual ones, the hypercall page is a page number', () => {
    const kernel = readKernel(
      makeElf({
        entry: TEST_BASE + 0x100000n,
        segments: [{ ...load, pa: TEST_BASE + 0x100000n }],
        sections: [
          legacy('GUEST_OS=netbsd,VIRT_BASE=0xffffffff80000000,HYPERCALL_PAGE=0x101,BSD_SYMTAB=yes'),
        ],
      }),
    );
    expect(kernel.description).toMatchObject({
      source: '__xen_guest',
      guestOs: 'netbsd',
      entry: BASE + 0x100000,
      paddrOffset: BASE,
      hypercallPage: BASE + 0x101000,
      bsdSymtab: true,
    });
    expect(kernel.start).toBe(0x100000);
  });

  it('a legacy string with numbers of other bases, and an entry of its own', () => {
    const kernel = readKernel(
      makeElf({
        segments: [load],
        sections: [legacy('VIRT_BASE=0,ELF_PADDR_OFFSET=0,VIRT_ENTRY=04000020,HYPERCALL_PAGE=257')],
      }),
    );
    expect(kernel.description).toMatchObject({ entry: 0x100010, hypercallPage: 0x101000, virtBase: 0 });
  });

  it('loads by physical address, less the offset, whatever the virtual one', () => {
    const kernel = readKernel(
      makeElf({
        segments: [
          { ...load, pa: 0x5100000n, va: 0n },
          { type: 4, pa: 0n, bytes: makeNotes([...notes, [ELFNOTE.PADDR_OFFSET, 0x5000000n]]) },
        ],
      }),
    );
    expect(kernel.pieces).toEqual([{ address: 0x100000, bytes: code }]);
  });

  it('is found inside a bzImage that is not compressed', () => {
    expect(readKernel(unpackKernel(makeBzImage(testKernel(), null))).description.guestOs).toBe('test');
  });
});

describe('a kernel that cannot run says why, in one line', () => {
  const sound = testKernel();
  const changed = (change: (view: DataView, bytes: Uint8Array) => void) => {
    const bytes = sound.slice();
    change(new DataView(bytes.buffer), bytes);
    return bytes;
  };
  const noted = (...more: [number, bigint | string | number][]) => testKernel({ notes: [...notes, ...more] });

  it.each<[string, Uint8Array, RegExp | string]>([
    ['empty', new Uint8Array(), 'the kernel is an empty file'],
    [
      'text',
      new TextEncoder().encode('#!/bin/sh\necho hello\n'),
      'the kernel is neither a bzImage nor an ELF file',
    ],
    ['zeros', new Uint8Array(100_000), 'the kernel is neither a bzImage nor an ELF file'],
    ['bare xz', Uint8Array.of(0xfd, 0x37, 0x7a, 0x58, 0x5a, 0, 1, 2), /bare xz file/],
    ['32 bits', changed((_, bytes) => (bytes[4] = 1)), /32-bit one: only 64-bit kernels/],
    [
      'another processor',
      changed((view) => view.setUint16(18, 183, true)),
      /another processor \(ELF machine 183\)/,
    ],
    [
      'big endian',
      changed((view) => {
        view.setUint8(5, 2);
        view.setUint16(18, 22);
      }),
      /another processor.*22/,
    ],
    ['ends in the header', sound.subarray(0, 40), 'the kernel is truncated: it ends in its ELF header'],
    [
      'ends in the program headers',
      sound.subarray(0, 100),
      /truncated: its program header table ends at byte 176/,
    ],
    [
      'ends in a segment',
      sound.subarray(0, 2000),
      /truncated: its segment 0 ends at byte 4272, the file at 2000/,
    ],
    [
      'no program headers',
      changed((view) => view.setUint16(56, 0, true)),
      /corrupt: it has no program headers/,
    ],
    ['odd program headers', changed((view) => view.setUint16(54, 32, true)), /corrupt/],
    [
      'impossible offset',
      changed((view) => view.setBigUint64(72, 2n ** 63n, true)),
      /corrupt.*impossible place/,
    ],
    [
      'larger in the file',
      changed((view) => view.setBigUint64(104, 1n, true)),
      /segment 0 is larger in the file/,
    ],
    [
      'absurd memory size',
      changed((view) => view.setBigUint64(104, 2n ** 50n, true)),
      /corrupt: it wants to be loaded/,
    ],
    [
      'absurd place',
      changed((view) => view.setBigUint64(88, 2n ** 60n, true)),
      /corrupt: it wants to be loaded/,
    ],
    ['no description', makeElf({ segments: [load] }), /does not support Xen: it has neither Xen notes nor/],
    [
      'nothing to load',
      makeElf({ segments: [{ type: 4, pa: 0n, bytes: makeNotes(notes) }] }),
      /nothing to load/,
    ],
    [
      'PVH only',
      testKernel({
        notes: [
          [ELFNOTE.PHYS32_ENTRY, 0x1000000n],
          [ELFNOTE.XEN_VERSION, 'xen-3.0'],
        ],
      }),
      /PVH/,
    ],
    ['another Xen', noted([ELFNOTE.XEN_VERSION, 'xen-2.0']), /for another Xen \(xen-2\.0\)/],
    [
      'translated memory',
      noted([ELFNOTE.FEATURES, '!auto_translated_physmap']),
      /needs auto_translated_physmap/,
    ],
    ['entry outside', noted([ELFNOTE.ENTRY, TEST_BASE]), /entry point ffffffff80000000 is outside/],
    ['hypercall page outside', noted([ELFNOTE.HYPERCALL_PAGE, TEST_BASE]), /hypercall page .* outside/],
    ['hypercall page askew', noted([ELFNOTE.HYPERCALL_PAGE, TEST_BASE + 0x101010n]), /hypercall page/],
    ['base askew', noted([ELFNOTE.VIRT_BASE, TEST_BASE + 8n]), /virtual base ffffffff80000008 is not usable/],
    ['base in the hole', noted([ELFNOTE.VIRT_BASE, 0xffff800000000000n]), /virtual base/],
    ['base not canonical', noted([ELFNOTE.VIRT_BASE, 0x1000000000000n]), /virtual base/],
    [
      'list in the hole',
      noted([ELFNOTE.INIT_P2M, 0xffff810000000000n]),
      /wants its frame list at ffff810000000000/,
    ],
    ['number of 3 bytes', noted([ELFNOTE.INIT_P2M, 'ab']), /Xen note 15 is not a number/],
    [
      'bad legacy number',
      makeElf({ segments: [load], sections: [legacy('VIRT_BASE=12monkeys')] }),
      /__xen_guest section says VIRT_BASE=12monkeys/,
    ],
    ['old note cut off', testKernel({ notes: [] }), /does not support Xen/],
  ])('%s', (_name, file, message) => {
    expect(refusal(file)).toMatch(message);
  });

  it('whatever bytes are changed, there is a kernel or a BuildError', () => {
    const at = fc.oneof(fc.nat(300), fc.nat(sound.length - 1));
    fc.assert(
      fc.property(
        fc.array(fc.tuple(at, fc.integer({ min: 0, max: 255 })), { minLength: 1, maxLength: 6 }),
        fc.option(fc.nat(sound.length)),
        (changes, length) => {
          const bytes = sound.slice(0, length ?? sound.length);
          for (const [place, value] of changes) if (place < bytes.length) bytes[place] = value;
          try {
            const kernel = readKernel(unpackKernel(bytes));
            planDomain({ kernel, ramdisk: null, cmdline: '', pages: 4096 });
          } catch (error) {
            if (!(error instanceof BuildError)) throw error;
          }
        },
      ),
      { numRuns: 3000 },
    );
  });
});
