import { describe, expect, it } from 'vitest';
import { ConsoleLog, consoleIo } from './console-io.ts';
import type { Domain } from './domain.ts';
import { DIRECT_MAP, hypercall } from './mm/testing.ts';
import { physdevOp, physdevOpCompat } from './physdev.ts';
import { CONSOLEIO } from './public/console.ts';
import { ERRNO } from './public/errno.ts';
import { XENFEAT } from './public/features.ts';
import { PHYSDEVOP } from './public/physdev.ts';
import { XENVER } from './public/version.ts';
import { VMASST_TYPE } from './public/xen.ts';
import { testDomains } from './testing-domains.ts';
import { xenVersion } from './xen-version.ts';
import { xsmOp } from './xsm.ts';

const one = () => testDomains({ domains: 1 }).domains[0]!;
const ascii = (text: string) => Uint8Array.from(text, (c) => c.charCodeAt(0));

describe('console_io', () => {
  it('prints, in pieces if it is much', () => {
    const at = one();
    const heard: number[] = [];
    at.domain.log.onWrite = (bytes) => heard.push(bytes.length);
    const text = Uint8Array.from({ length: 10_000 }, (_, i) => i);
    const start = at.va(at.free[0]!);
    at.vcpu.guest.copyTo(start, text);
    expect(hypercall(at.vcpu, consoleIo, CONSOLEIO.write, text.length, start)).toBe(0);
    expect(at.domain.log.bytes).toEqual(text);
    expect(heard).toEqual([4096, 4096, 1808]);
  });

  it('reads nothing, and refuses the rest', () => {
    const at = one();
    expect(hypercall(at.vcpu, consoleIo, CONSOLEIO.read, 100, at.argument)).toBe(0);
    expect(hypercall(at.vcpu, consoleIo, 2, 0, 0)).toBe(-ERRNO.ENOSYS);
    expect(hypercall(at.vcpu, consoleIo, CONSOLEIO.write, 5, 16)).toBe(-ERRNO.EFAULT);
    expect(hypercall(at.vcpu, consoleIo, CONSOLEIO.write, [0x80000000, 0], at.argument)).toBe(-ERRNO.EINVAL);
    expect(hypercall(at.vcpu, consoleIo, CONSOLEIO.write, 0, 0)).toBe(0);
  });

  it.each([1, 7, 10, 100])('keeps the last bytes, written %i at a time', (piece) => {
    const log = new ConsoleLog({} as Domain, 10);
    let all = '';
    for (let i = 0; i < 5; i++) {
      const text = Array.from({ length: piece }, (_, j) =>
        String.fromCharCode(97 + ((i * piece + j) % 26)),
      ).join('');
      log.write(ascii(text));
      all += text;
      expect(log.bytes).toEqual(ascii(all.slice(-10)));
    }
  });
});

describe('xen_version', () => {
  const ask = (command: number, setUp: (at: ReturnType<typeof one>) => void = () => {}) => {
    const at = one();
    at.vcpu.guest.copyTo(at.argument, new Uint8Array(1100).fill(0xff));
    setUp(at);
    const result = hypercall(at.vcpu, xenVersion, command, at.argument);
    const bytes = at.vcpu.guest.copyFrom(at.argument, 1100);
    const text = String.fromCharCode(...bytes.subarray(0, bytes.indexOf(0)));
    return { result, bytes, text, at };
  };

  it('is 4.17', () => expect(ask(XENVER.version).result).toBe(0x40011));

  it('answers in strings of fixed length', () => {
    const { text, bytes } = ask(XENVER.extraversion);
    expect(text).toMatch(/^[.-]\w+$/);
    expect([bytes[15], bytes[16]]).toEqual([0, 0xff]);
    expect(ask(XENVER.capabilities).text).toContain('xen-3.0-x86_64');
    expect(ask(XENVER.compile_info).bytes[143]).toBe(0);
    expect(ask(XENVER.compile_info).bytes[144]).toBe(0xff);
    expect(ask(XENVER.changeset).result).toBe(0);
    expect(ask(XENVER.commandline).text).toBe('<denied>');
  });

  it('tells where the hypervisor begins, and the domain’s own identifier', () => {
    const parameters = ask(XENVER.platform_parameters);
    expect([...parameters.bytes.subarray(0, 8)]).toEqual([0, 0, 0, 0, 0, 0x80, 0xff, 0xff]);
    const { bytes, at } = ask(XENVER.guest_handle);
    expect(bytes.subarray(0, 16)).toEqual(at.domain.uuid);
  });

  it('has the features of a paravirtual domain', () => {
    const features = (vmAssist = 0) => {
      const { at } = ask(XENVER.get_features, ({ put, domain }) => {
        put({ 0: 0 });
        domain.vmAssist = vmAssist;
      });
      return at.vcpu.guest.u32(at.argument + 4);
    };
    const has = (bit: number) => (features() >>> bit) & 1;
    for (const bit of [
      XENFEAT.mmu_pt_update_preserve_ad,
      XENFEAT.highmem_assist,
      XENFEAT.gnttab_map_avail_bits,
    ])
      expect(has(bit)).toBe(1);
    for (const bit of [
      XENFEAT.writable_page_tables,
      XENFEAT.auto_translated_physmap,
      XENFEAT.supervisor_mode_kernel,
      XENFEAT.dom0,
    ])
      expect(has(bit)).toBe(0);
    expect(features(1 << VMASST_TYPE.pae_extended_cr3) ^ features()).toBe(1 << XENFEAT.pae_pgdir_above_4gb);
    expect(ask(XENVER.get_features, ({ put }) => put({ 0: 1 })).result).toBe(-ERRNO.EINVAL);
  });

  it('knows the page size, and refuses the rest', () => {
    const { vcpu } = one();
    expect(hypercall(vcpu, xenVersion, XENVER.pagesize, 0)).toBe(4096);
    expect(ask(XENVER.pagesize).result).toBe(-ERRNO.EINVAL);
    expect(ask(XENVER.build_id).result).toBe(-ERRNO.EPERM);
    expect(ask(11).result).toBe(-ERRNO.ENOSYS);
    expect(hypercall(vcpu, xenVersion, XENVER.capabilities, DIRECT_MAP - 4096)).toBe(-ERRNO.EFAULT);
  });
});

describe('physdev_op', () => {
  it('sets the I/O privilege of the vCPU', () => {
    const at = one();
    at.put({ 0: 1 });
    expect(hypercall(at.vcpu, physdevOp, PHYSDEVOP.set_iopl, at.argument)).toBe(0);
    expect(at.vcpu.iopl).toBe(1);
    at.put({ 0: 4 });
    expect(hypercall(at.vcpu, physdevOp, PHYSDEVOP.set_iopl, at.argument)).toBe(-ERRNO.EINVAL);
    at.put({ 0: PHYSDEVOP.set_iopl, 8: 3 });
    expect(hypercall(at.vcpu, physdevOpCompat, at.argument)).toBe(0);
    expect(at.vcpu.iopl).toBe(3);
  });

  it.each([
    [PHYSDEVOP.map_pirq, ERRNO.EPERM],
    [PHYSDEVOP.apic_read, ERRNO.EPERM],
    [PHYSDEVOP.eoi, ERRNO.EINVAL],
    [PHYSDEVOP.pirq_eoi_gmfn_v2, ERRNO.ENOSYS],
    [PHYSDEVOP.IRQ_UNMASK_NOTIFY, ERRNO.ENOSYS],
    [1234, ERRNO.ENOSYS],
  ])('refuses command %i', (command, errno) => {
    const at = one();
    expect(hypercall(at.vcpu, physdevOp, command, at.argument)).toBe(-errno);
  });

  it('has no ports to open', () => {
    const at = one();
    at.put({ 8: 65536 });
    expect(hypercall(at.vcpu, physdevOp, PHYSDEVOP.set_iobitmap, at.argument)).toBe(0);
    at.put({ 8: 65537 });
    expect(hypercall(at.vcpu, physdevOp, PHYSDEVOP.set_iobitmap, at.argument)).toBe(-ERRNO.EINVAL);
  });
});

it('xsm_op is not there', () => expect(xsmOp()).toBe(-ERRNO.ENOSYS));
