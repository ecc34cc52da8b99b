/** xl list, vm-list, domid, domname, uptime, vcpu-list: what there is. */
import type { DomainInfo, VcpuInfo } from '../../api/model.ts';
import { SHUTDOWN_REASONS } from '../../api/names.ts';
import { domainOf } from '../../api/toolstack.ts';
import { needDomain, type Run, unknownDomain, type XlContext, XlError } from '../context.ts';

/** As libxl has it: one letter for each reason, in the order of SHUTDOWN_*. */
const REASON_LETTERS = '-rscwS';

export const list: Run = async (context, args) => {
  const toolstack = await context.toolstack();
  const all = await toolstack.list();
  const named = args.operands.map((qualifier) => {
    const found = domainOf(all, qualifier);
    if (found) return found;
    throw /^\d+$/.test(qualifier)
      ? new XlError(`Error: Domain '${qualifier}' does not exist.`)
      : unknownDomain(qualifier);
  });
  const domains = named.length > 0 ? named : all;
  if (args.has('l')) {
    const { domainJson, indented } = await import('../json.ts');
    const details = [];
    for (const info of domains.filter(({ domid }) => domid !== 0)) {
      const config = await toolstack.configuration(info.domid).catch(() => null);
      if (config) details.push({ domid: info.domid, config: domainJson(config, info) });
    }
    context.out(`${indented(details)}\n`);
    return;
  }
  const verbose = args.has('v');
  const labels = args.has('Z') && !verbose;
  let head = 'Name                                        ID   Mem VCPUs\tState\tTime(s)';
  if (verbose) head += '   UUID                            Reason-Code\tSecurity Label';
  if (labels) head += '   Security Label';
  if (args.has('c')) head += '         Cpupool';
  if (args.has('n')) head += ' NODE Affinity';
  const lines = domains.map((info) => {
    let line = listLine(info);
    if (verbose) {
      const reason = info.shutdown === null ? '-' : SHUTDOWN_REASONS.indexOf(info.shutdown).toString(16);
      line += ` ${info.uuid} ${reason.padStart(8)}`;
    }
    if (verbose || labels) line += ` ${'-'.padStart(16)}`;
    if (args.has('c')) line += 'Pool-0'.padStart(16);
    if (args.has('n')) line += ' all';
    return line;
  });
  context.out([head, ...lines, ''].join('\n'));
};

/** A line of the table: name, number, MiB, virtual CPUs, state, seconds of CPU. */
export function listLine(info: DomainInfo): string {
  return (
    `${info.name.padEnd(40)} ${pad(info.domid, 5)} ${pad(Math.floor(info.memory / 1024), 5)} ` +
    `${pad(info.vcpus, 5)}     ${stateOf(info)}  ${info.cpuTime.toFixed(1).padStart(8)}`
  );
}

export function stateOf(info: DomainInfo): string {
  const reason = info.shutdown === null ? 0 : SHUTDOWN_REASONS.indexOf(info.shutdown);
  return [
    info.running ? 'r' : '-',
    info.blocked ? 'b' : '-',
    info.paused ? 'p' : '-',
    info.shutdown === null ? '-' : 's',
    REASON_LETTERS[reason] ?? '?',
    info.dying ? 'd' : '-',
  ].join('');
}

export const vmList: Run = async (context) => {
  const domains = (await (await context.toolstack()).list()).filter(({ domid }) => domid !== 0);
  const lines = domains.map(({ uuid, domid, name }) => `${uuid}  ${domid}    ${name.padEnd(30)}`);
  context.out(['UUID                                  ID    name', ...lines, ''].join('\n'));
};

export const domid: Run = async (context, { operands }) => {
  const [name] = operands as [string];
  const found = (await (await context.toolstack()).list()).find((each) => each.name === name);
  if (!found)
    throw new XlError(`Can't get domid of domain name '${name}', maybe this domain does not exist.`);
  context.out(`${found.domid}\n`);
};

export const domname: Run = async (context, { operands }) => {
  const [number] = operands as [string];
  if (!/^\d+/.test(number)) throw new XlError('Invalid domain id.\n');
  const id = Number.parseInt(number, 10);
  const found = (await (await context.toolstack()).list()).find((each) => each.domid === id);
  if (!found)
    throw new XlError(`Can't get domain name of domain id '${id}', maybe this domain does not exist.`);
  context.out(`${found.name}\n`);
};

export const uptime: Run = async (context, args) => {
  const all = await (await context.toolstack()).list();
  const chosen: DomainInfo[] = [];
  for (const qualifier of args.operands) chosen.push(await needDomain(context, qualifier));
  const short = args.has('s');
  if (!short) context.out(`${'Name'.padEnd(33)} ${'ID'.padStart(4)} Uptime\n`);
  const now = new Date().toTimeString().slice(0, 8);
  for (const info of args.operands.length > 0 ? chosen : all) {
    const time = duration(info.uptime, short);
    if (short) context.out(` ${now} up ${time}, ${info.name} (${info.domid})\n`);
    else context.out(`${info.name.padEnd(33)} ${pad(info.domid, 4)} ${time}\n`);
  }
};

/** Days, hours, minutes, and (if it is not to be short) seconds. */
export function duration(seconds: number, short: boolean): string {
  const whole = Math.floor(seconds);
  const days = Math.floor(whole / 86400);
  const two = (value: number) => String(value).padStart(2, '0');
  const hours = String(Math.floor(whole / 3600) % 24).padStart(2);
  const time = `${hours}:${two(Math.floor(whole / 60) % 60)}${short ? '' : `:${two(whole % 60)}`}`;
  return days === 0 ? time : `${days} day${days > 1 ? 's' : ''}, ${time}`;
}

export const vcpuList: Run = async (context, { operands }) => {
  const toolstack = await context.toolstack();
  const domains: DomainInfo[] = [];
  for (const qualifier of operands) domains.push(await needDomain(context, qualifier));
  const { processors } = await toolstack.host();
  const head =
    `${'Name'.padEnd(32)} ${'ID'.padStart(5)} ${'VCPU'.padStart(5)} ${'CPU'.padStart(5)} ` +
    `${'State'.padStart(5)} ${'Time(s)'.padStart(9)} Affinity (Hard / Soft)\n`;
  context.out(head);
  for (const info of operands.length > 0 ? domains : await toolstack.list()) {
    for (const vcpu of await vcpusOf(context, info)) context.out(vcpuLine(info, vcpu, processors));
  }
};

async function vcpusOf(context: XlContext, info: DomainInfo): Promise<VcpuInfo[]> {
  if (info.domid !== 0) return (await context.toolstack()).vcpus(info.domid);
  const { running, blocked, cpuTime } = info;
  return [{ vcpu: 0, online: true, running, blocked, cpu: 0, cpuTime, affinity: null }];
}

function vcpuLine({ name, domid }: DomainInfo, vcpu: VcpuInfo, processors: number): string {
  const where = vcpu.online
    ? `${pad(vcpu.cpu, 5)} ${(vcpu.running ? 'r' : '-').padStart(3)}${vcpu.blocked ? 'b' : '-'}- `
    : `${'-'.padStart(5)} ${'-'.padStart(3)}-p `;
  const hard = cpuRanges(vcpu.affinity, processors);
  return `${name.padEnd(32)} ${pad(domid, 5)} ${pad(vcpu.vcpu, 5)}${where}${vcpu.cpuTime.toFixed(1).padStart(9)}  ${hard} / all\n`;
}

/** Such as "0-2,5"; "all" if it is all. */
export function cpuRanges(cpus: readonly number[] | null, processors: number): string {
  if (cpus === null || cpus.length === processors) return 'all';
  const parts: string[] = [];
  for (let index = 0; index < cpus.length; index++) {
    const first = cpus[index]!;
    while (cpus[index + 1] === cpus[index]! + 1) index++;
    parts.push(cpus[index] === first ? `${first}` : `${first}-${cpus[index]}`);
  }
  return parts.join(',') || 'none';
}

function pad(value: number, width: number): string {
  return String(value).padStart(width);
}
