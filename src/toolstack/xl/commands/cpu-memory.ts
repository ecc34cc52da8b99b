/** xl vcpu-pin, vcpu-set, mem-set, mem-max, sched-bvt. */
import type { DomainInfo, DomainScheduling } from '../../api/model.ts';
import { type Arguments, needDomain, needNumber, type Run, type XlContext, XlError } from '../context.ts';

export const vcpuPin: Run = async (context, { operands }) => {
  const [qualifier, which, hard, soft] = operands as [string, string, string, string | undefined];
  const { domid } = await needDomain(context, qualifier);
  const vcpu = which === 'all' ? null : needNumber(which, 'VCPU');
  const toolstack = await context.toolstack();
  if (hard !== '-') await toolstack.setAffinity(domid, vcpu, hard);
  if (soft !== undefined && soft !== '-' && soft !== 'all')
    throw new XlError(
      'Soft affinity is not supported: the scheduler knows only where a virtual CPU may run.',
    );
};

export const vcpuSet: Run = async (context, args) => {
  const [qualifier, text] = args.operands as [string, string];
  const info = await needDomain(context, qualifier);
  const toolstack = await context.toolstack();
  if (!/^\d+$/.test(text)) throw new XlError('Error: Invalid argument.');
  // "Trying to set VCPUs to < 1 will be quietly ignored": xl(1).
  const count = Number(text);
  if (count < 1) return;
  const { processors } = await toolstack.host();
  if (!args.has('i') && count > info.vcpus && count > processors) {
    throw new XlError(
      `You are overcommmitting! You have ${processors} physical CPUs and want ${count} vCPUs! ` +
        'Aborting, use --ignore-host to continue',
    );
  }
  await toolstack.setVcpus(info.domid, count);
};

export const memSet: Run = async (context, { operands }) => {
  const [qualifier, size] = operands as [string, string];
  const { domid } = await needDomain(context, qualifier);
  await (await context.toolstack()).setMemory(domid, kibOf(size));
};

export const memMax: Run = async (context, { operands }) => {
  const [qualifier, size] = operands as [string, string];
  const { domid } = await needDomain(context, qualifier);
  await (await context.toolstack()).setMaxMemory(domid, kibOf(size));
};

const SHIFTS: Readonly<Record<string, number>> = { b: 2 ** -10, k: 1, m: 2 ** 10, g: 2 ** 20, t: 2 ** 30 };

/** A size as xl takes it: MiB, or with a suffix t, g, m, k or b. @returns KiB @throws XlError */
export function kibOf(text: string): number {
  const match = /^(\d{1,12})([bkmgt]?)$/i.exec(text);
  if (!match) throw new XlError(`invalid memory size: ${text}`);
  const kib = Math.floor(Number(match[1]) * SHIFTS[match[2]!.toLowerCase() || 'm']!);
  if (kib < 1 || kib > 2 ** 42) throw new XlError(`invalid memory size: ${text}`);
  return kib;
}

/** Options that set a parameter, and what they set. */
const PARAMETERS = {
  m: 'mcuAdvance',
  b: 'warpback',
  v: 'warpValue',
  l: 'warpLimit',
  u: 'unwarpTime',
} as const;

export const schedBvt: Run = async (context, args) => {
  const toolstack = await context.toolstack();
  const changes = changesOf(args);
  const domain = args.value('d');
  if (args.has('s')) {
    if (domain !== undefined || changes)
      throw new XlError('-s is about the whole machine: it goes with -c alone.', 1);
    const allowance = args.value('c');
    if (allowance !== undefined)
      await toolstack.setScheduler({ contextSwitchAllowance: needNumber(allowance, 'time') });
    const { contextSwitchAllowance } = await toolstack.scheduler();
    if (allowance === undefined) context.out(`ctx_allow=${contextSwitchAllowance}us\n`);
    return;
  }
  if (args.has('c')) throw new XlError('Must specify -s to set parameters of the whole machine.');
  if (domain === undefined) {
    if (changes) throw new XlError('Must specify a domain.');
    await show(
      context,
      (await toolstack.list()).filter(({ domid }) => domid !== 0),
    );
    return;
  }
  const info = await needDomain(context, domain);
  if (changes) await toolstack.setDomainScheduling(info.domid, changes);
  else await show(context, [info]);
};

function changesOf(args: Arguments): Partial<DomainScheduling> | null {
  const changes: Record<string, number | boolean> = {};
  for (const [letter, name] of Object.entries(PARAMETERS)) {
    const text = args.value(letter);
    if (text === undefined) continue;
    if (name === 'warpback') {
      if (text !== '0' && text !== '1') throw new XlError(`-${letter} ${text}: must be 0 or 1`);
      changes[name] = text === '1';
    } else {
      if (!/^\d{1,12}(\.\d{1,6})?$/.test(text)) throw new XlError(`-${letter} ${text}: not a number`);
      changes[name] = Number(text);
    }
  }
  return Object.keys(changes).length > 0 ? (changes as Partial<DomainScheduling>) : null;
}

async function show(context: XlContext, domains: readonly DomainInfo[]): Promise<void> {
  const toolstack = await context.toolstack();
  context.out(
    `${'Name'.padEnd(33)} ${'ID'.padStart(4)} ${'McuAdv'.padStart(8)} ${'Warpback'.padStart(8)} ` +
      `${'WarpVal'.padStart(8)} ${'WarpLimit(us)'.padStart(13)} ${'Unwarp(us)'.padStart(10)}\n`,
  );
  for (const { domid, name } of domains) {
    const it = await toolstack.domainScheduling(domid);
    context.out(
      `${name.padEnd(33)} ${String(domid).padStart(4)} ${String(Number(it.mcuAdvance.toFixed(4))).padStart(8)} ` +
        `${(it.warpback ? '1' : '0').padStart(8)} ${String(it.warpValue).padStart(8)} ` +
        `${String(it.warpLimit).padStart(13)} ${String(it.unwarpTime).padStart(10)}\n`,
    );
  }
}
