/** The hypercall xen_version (public/version.h): who this hypervisor is and what it offers. */
import { PAGE_SIZE } from '../machine/memory.ts';
import type { VirtualAddress } from '../x86/cpu.ts';
import type { Arguments } from './hypercall.ts';
import { ERRNO } from './public/errno.ts';
import { XENFEAT, XENFEAT_NR_SUBMAPS } from './public/features.ts';
import {
  XEN_CAPABILITIES_INFO_LEN,
  XEN_CHANGESET_INFO_LEN,
  XEN_COMMANDLINE_LEN,
  XEN_COMPILE_INFO,
  XEN_EXTRAVERSION_LEN,
  XEN_FEATURE_INFO,
  XENVER,
} from './public/version.ts';
import { HYPERVISOR_VIRT_START, VMASST_TYPE } from './public/xen.ts';
import type { Vcpu } from './vcpu.ts';

/** The interface is that of Xen 4.17. */
export const XEN_VERSION = { major: 4, minor: 17, extra: '-xenolith' } as const;
/** The interfaces that domains may be built for. */
export const XEN_CAPABILITIES = 'xen-3.0-x86_64';

const COMPILE_INFO = { compiler: 'TypeScript', compile_by: 'xenolith', compile_domain: '', compile_date: '' };
/** What an unprivileged domain reads where the answer is not for it. */
const DENIED = '<denied>';

/** xen_version(cmd, arg). */
export function xenVersion(vcpu: Vcpu, args: Arguments): number {
  const { guest } = vcpu;
  const at = args.number(1);
  switch (args.low(0)) {
    case XENVER.version:
      return (XEN_VERSION.major << 16) | XEN_VERSION.minor;
    case XENVER.extraversion:
      return text(vcpu, at, XEN_VERSION.extra, XEN_EXTRAVERSION_LEN);
    case XENVER.compile_info: {
      const bytes = new Uint8Array(XEN_COMPILE_INFO.size);
      for (const [field, value] of Object.entries(COMPILE_INFO)) {
        const [offset, length] = XEN_COMPILE_INFO[field as keyof typeof COMPILE_INFO];
        bytes.set(padded(value, length), offset);
      }
      guest.copyTo(at, bytes);
      return 0;
    }
    case XENVER.capabilities:
      return text(vcpu, at, XEN_CAPABILITIES + ' ', XEN_CAPABILITIES_INFO_LEN);
    case XENVER.changeset:
      return text(vcpu, at, '', XEN_CHANGESET_INFO_LEN);
    case XENVER.platform_parameters:
      guest.setNumber64(at, HYPERVISOR_VIRT_START);
      return 0;
    case XENVER.get_features:
      if (guest.u32(at + XEN_FEATURE_INFO.submap_idx) >= XENFEAT_NR_SUBMAPS) return -ERRNO.EINVAL;
      guest.setU32(at + XEN_FEATURE_INFO.submap, features(vcpu));
      return 0;
    case XENVER.pagesize:
      return at === 0 ? PAGE_SIZE : -ERRNO.EINVAL;
    case XENVER.guest_handle:
      guest.copyTo(at, vcpu.domain.uuid);
      return 0;
    case XENVER.commandline:
      return text(vcpu, at, DENIED, XEN_COMMANDLINE_LEN);
    case XENVER.build_id:
      return -ERRNO.EPERM;
    default:
      return -ERRNO.ENOSYS;
  }
}

/**
 * The features of submap 0 that a paravirtual domain gets. Page tables and descriptor tables stay write-protected,
 * frame numbers are not translated and the kernel does not run in ring 0, so those bits are clear.
 */
function features(vcpu: Vcpu): number {
  let features =
    (1 << XENFEAT.mmu_pt_update_preserve_ad) |
    (1 << XENFEAT.highmem_assist) |
    (1 << XENFEAT.gnttab_map_avail_bits) |
    (1 << XENFEAT.memory_op_vnode_supported) |
    (1 << XENFEAT.not_direct_mapped);
  if ((vcpu.domain.vmAssist & (1 << VMASST_TYPE.pae_extended_cr3)) !== 0) {
    features |= 1 << XENFEAT.pae_pgdir_above_4gb;
  }
  return features >>> 0;
}

function text(vcpu: Vcpu, at: VirtualAddress, value: string, length: number): number {
  vcpu.guest.copyTo(at, padded(value, length));
  return 0;
}

/** ASCII, cut so that a terminating zero remains, padded with zeros. */
function padded(value: string, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < Math.min(value.length, length - 1); i++) bytes[i] = value.charCodeAt(i) & 0x7f;
  return bytes;
}
