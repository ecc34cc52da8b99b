/** All hypercalls, by number. A number that is not here is ENOSYS. */
import { callbackOp, nmiOp, setCallbacks } from './callback.ts';
import { consoleIo } from './console-io.ts';
import { getDebugreg, setDebugreg } from './debugreg.ts';
import { setGdt, updateDescriptor } from './descriptors.ts';
import { eventChannelOp, eventChannelOpCompat } from './event-channel-op.ts';
import { fpuTaskswitch } from './fpu.ts';
import { grantTableOp } from './grant-table-op.ts';
import type { Hypercall, HypercallHandler } from './hypercall.ts';
import { iret, stackSwitch } from './iret.ts';
import { memoryOp } from './memory-op.ts';
import { mmuUpdate, updateVaMapping, updateVaMappingOtherdomain } from './mm/mmu-update.ts';
import { mmuextOp } from './mm/mmuext.ts';
import { makeMulticall } from './multicall.ts';
import { physdevOp, physdevOpCompat } from './physdev.ts';
import { CALLBACKOP } from './public/callback.ts';
import { CONSOLEIO } from './public/console.ts';
import { ERRNO } from './public/errno.ts';
import { EVTCHNOP } from './public/event_channel.ts';
import { GNTTABOP } from './public/grant_table.ts';
import { XENMEM } from './public/memory.ts';
import { PHYSDEVOP } from './public/physdev.ts';
import { SCHEDOP } from './public/sched.ts';
import { VCPUOP } from './public/vcpu.ts';
import { XENVER } from './public/version.ts';
import { HYPERVISOR, hypercallName, NR_HYPERCALLS, VMASST_CMD } from './public/xen.ts';
import { schedOp, schedOpCompat } from './sched.ts';
import { setSegmentBase } from './segments.ts';
import { setTimerOp } from './time.ts';
import { setTrapTable } from './traps.ts';
import { vcpuOp } from './vcpu-op.ts';
import { vmAssist } from './vm-assist.ts';
import { xenVersion } from './xen-version.ts';
import { xsmOp } from './xsm.ts';

/** For domains that control others. */
const refused: HypercallHandler = () => -ERRNO.EPERM;
/** There is no virtual performance unit. */
const notSupported: HypercallHandler = () => -ERRNO.EOPNOTSUPP;

/** @returns by number; sparse */
export function makeHypercalls(): readonly (Hypercall | undefined)[] {
  const table: (Hypercall | undefined)[] = new Array(NR_HYPERCALLS).fill(undefined);
  const add = (
    number: number,
    count: number,
    handler: HypercallHandler,
    commands?: Readonly<Record<string, number>>,
  ) => {
    table[number] = { name: hypercallName(number), handler, arguments: count, ...(commands && { commands }) };
  };
  add(HYPERVISOR.set_trap_table, 1, setTrapTable);
  add(HYPERVISOR.mmu_update, 4, mmuUpdate);
  add(HYPERVISOR.set_gdt, 2, setGdt);
  add(HYPERVISOR.stack_switch, 2, stackSwitch);
  add(HYPERVISOR.set_callbacks, 3, setCallbacks);
  add(HYPERVISOR.fpu_taskswitch, 1, fpuTaskswitch);
  add(HYPERVISOR.sched_op_compat, 2, schedOpCompat, SCHEDOP);
  add(HYPERVISOR.platform_op, 1, refused);
  add(HYPERVISOR.set_debugreg, 2, setDebugreg);
  add(HYPERVISOR.get_debugreg, 1, getDebugreg);
  add(HYPERVISOR.update_descriptor, 2, updateDescriptor);
  add(HYPERVISOR.memory_op, 2, memoryOp, XENMEM);
  add(HYPERVISOR.multicall, 2, makeMulticall(table));
  add(HYPERVISOR.update_va_mapping, 3, updateVaMapping);
  add(HYPERVISOR.set_timer_op, 1, setTimerOp);
  add(HYPERVISOR.event_channel_op_compat, 1, eventChannelOpCompat);
  add(HYPERVISOR.xen_version, 2, xenVersion, XENVER);
  add(HYPERVISOR.console_io, 3, consoleIo, CONSOLEIO);
  add(HYPERVISOR.physdev_op_compat, 1, physdevOpCompat);
  add(HYPERVISOR.grant_table_op, 3, grantTableOp, GNTTABOP);
  add(HYPERVISOR.vm_assist, 2, vmAssist, VMASST_CMD);
  add(HYPERVISOR.update_va_mapping_otherdomain, 4, updateVaMappingOtherdomain);
  add(HYPERVISOR.iret, 0, iret);
  add(HYPERVISOR.vcpu_op, 3, vcpuOp, VCPUOP);
  add(HYPERVISOR.set_segment_base, 2, setSegmentBase);
  add(HYPERVISOR.mmuext_op, 4, mmuextOp);
  add(HYPERVISOR.xsm_op, 1, xsmOp);
  add(HYPERVISOR.nmi_op, 2, nmiOp);
  add(HYPERVISOR.sched_op, 2, schedOp, SCHEDOP);
  add(HYPERVISOR.callback_op, 2, callbackOp, CALLBACKOP);
  add(HYPERVISOR.event_channel_op, 2, eventChannelOp, EVTCHNOP);
  add(HYPERVISOR.physdev_op, 2, physdevOp, PHYSDEVOP);
  add(HYPERVISOR.sysctl, 1, refused);
  add(HYPERVISOR.domctl, 1, refused);
  add(HYPERVISOR.kexec_op, 2, refused);
  add(HYPERVISOR.xenpmu_op, 2, notSupported);
  return table;
}
