/** A domain's configuration as libxl writes it in JSON, for `xl list -l` and `xl create -n`: scripts read it. */
import type { Action, DomainConfig, DomainInfo } from '../api/model.ts';

/** libxl's names of what xl.cfg calls otherwise. */
const ACTION_NAMES: Partial<Record<Action, string>> = {
  'rename-restart': 'restart_rename',
  'coredump-destroy': 'coredump_destroy',
  'coredump-restart': 'coredump_restart',
};

const NO_DOMID = 0xffff_ffff;

/** @param info of the domain that was made of it; left out: there is none yet */
export function domainJson(config: DomainConfig, info?: DomainInfo): unknown {
  const action = (name: string, value: Action) =>
    value === 'destroy' ? {} : { [name]: ACTION_NAMES[value] ?? value };
  const online = Math.min(config.vcpus, config.maxVcpus);
  const uuid = info?.uuid ?? config.uuid;
  return {
    c_info: {
      type: 'pv',
      name: config.name,
      domid: NO_DOMID,
      ...(uuid === null ? {} : { uuid }),
      run_hotplug_scripts: 'True',
    },
    b_info: {
      max_vcpus: config.maxVcpus,
      avail_vcpus: Array.from({ length: online }, (_, index) => index),
      max_memkb: config.maxMemory,
      target_memkb: config.memory,
      video_memkb: 0,
      sched_params: { sched: 'bvt', weight: config.weight },
      claim_mode: 'False',
      kernel: config.kernel,
      cmdline: config.cmdline,
      ...(config.ramdisk === null ? {} : { ramdisk: config.ramdisk }),
      'type.pv': {},
      arch_arm: {},
      arch_x86: { msr_relaxed: 'False' },
    },
    ...(config.disks.length > 0 ? { disks: config.disks.map((spec) => ({ spec })) } : {}),
    ...(config.vifs.length > 0 ? { nics: config.vifs.map((spec, devid) => ({ devid, spec })) } : {}),
    ...action('on_poweroff', config.onPoweroff),
    ...action('on_reboot', config.onReboot),
    ...action('on_watchdog', config.onWatchdog),
    ...action('on_crash', config.onCrash),
    on_soft_reset: 'soft_reset',
  };
}

/** JSON with four blanks to a level, and a line of its own for what is in braces that hold nothing, as libxl's. */
export function indented(value: unknown): string {
  return JSON.stringify(value, null, 4);
}
