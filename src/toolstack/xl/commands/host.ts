/** xl info, dmesg: the machine. */
import type { Run } from '../context.ts';

export const info: Run = async (context, args) => {
  const host = await (await context.toolstack()).host();
  const [, major, minor, extra] = /^(\d+)\.(\d+)(.*)$/.exec(host.xenVersion) ?? [];
  const mib = (kib: number) => Math.floor(kib / 1024);
  const facts: readonly (readonly [name: string, value: string | number])[] = [
    ['host', host.host],
    ['release', host.release],
    ['version', host.kernelVersion],
    ['machine', host.machine],
    ['nr_cpus', host.processors],
    ['max_cpu_id', host.processors - 1],
    ['nr_nodes', 1],
    ['cores_per_socket', host.processors],
    ['threads_per_core', 1],
    ['cpu_mhz', host.mhz.toFixed(3)],
    ['virt_caps', 'pv'],
    ['total_memory', mib(host.totalMemory)],
    ['free_memory', mib(host.freeMemory)],
    ['sharing_freed_memory', mib(host.savedMemory)],
    ['sharing_used_memory', mib(host.sharedMemory)],
    ['outstanding_claims', 0],
    ['free_cpus', 0],
    ['xen_major', major!],
    ['xen_minor', minor!],
    ['xen_extra', extra!],
    ['xen_version', host.xenVersion],
    ['xen_caps', 'xen-3.0-x86_64'],
    ['xen_scheduler', host.scheduler],
    ['xen_pagesize', 4096],
    ['platform_params', 'virt_start=0xffff800000000000'],
    ['xen_changeset', ''],
    ['xen_commandline', ''],
    ['cc_compiler', 'TypeScript'],
    ['xenolith_version', host.version],
    ['xend_config_format', 4],
  ];
  const [wanted] = args.operands;
  if (wanted !== undefined) {
    const found = facts.find(([name]) => name === wanted);
    if (found) context.out(`${found[1]}\n`);
    return;
  }
  for (const [name, value] of facts) {
    context.out(`${name.padEnd(22)} : ${value}\n`);
    if (name === 'free_cpus' && args.has('n'))
      context.out(topology(host.processors, mib(host.totalMemory), mib(host.freeMemory)));
  }
};

/** One node with everything in it. */
function topology(processors: number, total: number, free: number): string {
  const cpus = Array.from(
    { length: processors },
    (_, cpu) => `${String(cpu).padStart(3)}:    ${String(cpu).padStart(4)}        0        0\n`,
  );
  return (
    `cpu_topology           :\ncpu:    core    socket     node\n${cpus.join('')}` +
    'numa_info              :\nnode:    memsize    memfree    distances\n' +
    `   0:    ${String(total).padStart(6)}     ${String(free).padStart(6)}      10\n`
  );
}

export const dmesg: Run = async (context, args) => {
  context.out(await (await context.toolstack()).log(args.has('c')));
};
