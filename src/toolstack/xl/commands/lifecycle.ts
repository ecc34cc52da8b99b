/** xl shutdown, reboot, destroy, pause, unpause, rename, sysrq, trigger, dump-core. */
import { resolve } from 'node:path';
import type { DomainInfo } from '../../api/model.ts';
import { SHUTDOWN_REASONS, TRIGGERS } from '../../api/names.ts';
import { type Arguments, needDomain, needNumber, type Run, type XlContext, XlError } from '../context.ts';

export const shutdown: Run = (context, args) => goDown(context, args, 'poweroff');
export const reboot: Run = (context, args) => goDown(context, args, 'reboot');

async function goDown(context: XlContext, args: Arguments, how: 'poweroff' | 'reboot'): Promise<undefined> {
  const toolstack = await context.toolstack();
  const [qualifier] = args.operands;
  const all = args.has('a');
  if (qualifier === undefined && !all) throw new XlError('You must specify -a or a domain id.\n');
  const domains = all
    ? (await toolstack.list()).filter(({ domid }) => domid !== 0)
    : [await needDomain(context, qualifier!)];
  for (const { domid } of domains) {
    context.err(how === 'reboot' ? `Rebooting domain ${domid}\n` : `Shutting down domain ${domid}\n`);
    await toolstack.shutdown(domid, how);
  }
  if (!args.has('w')) return;
  context.err(`Waiting for ${domains.length} domains\n`);
  // Once: until it has shut down or is gone; more than once: until it is gone.
  const until = args.count('w') > 1 ? 'death' : 'shutdown';
  await Promise.all(
    domains.map(async ({ domid }) => {
      const { kind, reason } = await toolstack.wait(domid, until);
      const code = SHUTDOWN_REASONS.indexOf(reason ?? 'poweroff');
      const what = kind === 'destroyed' ? 'destroyed' : `shut down, reason code ${code}`;
      context.err(`Domain ${domid} has been ${what}\n`);
    }),
  );
}

export const fork: Run = async (context, args) => {
  const { domid } = await needDomain(context, args.operands[0]!);
  const count = needNumber(args.value('n') ?? '1', 'COUNT');
  if (count < 1) throw new XlError('Error: Invalid argument 0 as COUNT.');
  for (const { name } of await (await context.toolstack()).fork(domid, count, args.has('p')))
    context.out(`${name}\n`);
};

export const destroy: Run = async (context, { operands }) => {
  const { domid } = await needDomain(context, operands[0]!);
  if (domid === 0) throw new XlError('Not destroying domain 0: it is what destroys the others.');
  await (await context.toolstack()).destroy(domid);
};

export const pause: Run = async (context, { operands }) => {
  const { domid } = await needDomain(context, operands[0]!);
  await (await context.toolstack()).pause(domid);
};

export const unpause: Run = async (context, { operands }) => {
  const { domid } = await needDomain(context, operands[0]!);
  await (await context.toolstack()).unpause(domid);
};

export const rename: Run = async (context, { operands }) => {
  const [qualifier, name] = operands as [string, string];
  const { domid } = await needDomain(context, qualifier);
  try {
    await (await context.toolstack()).rename(domid, name);
  } catch (error) {
    throw new XlError(`${(error as Error).message}\nCan't rename domain '${qualifier}'.`);
  }
};

export const sysrq: Run = async (context, { operands }) => {
  const [qualifier, letter] = operands as [string, string];
  const { domid } = await needDomain(context, qualifier);
  if (letter.length !== 1) throw new XlError('Invalid sysrq.\n');
  await (await context.toolstack()).sysrq(domid, letter);
};

export const trigger: Run = async (context, { operands }) => {
  const [qualifier, name, vcpu] = operands as [string, string, string | undefined];
  const { domid } = await needDomain(context, qualifier);
  const known = TRIGGERS.find((each) => each === name);
  if (!known) throw new XlError(`Invalid trigger "${name}"`);
  await (await context.toolstack()).trigger(domid, known, vcpu === undefined ? 0 : needNumber(vcpu, 'VCPU'));
};

export const dumpCore: Run = async (context, { operands }) => {
  const [qualifier, file] = operands as [string, string | undefined];
  const info: DomainInfo = await needDomain(context, qualifier);
  const path = resolve(context.cwd, file ?? `${context.place.dumps}/${info.name}.${info.domid}.core`);
  await (await context.toolstack()).dumpCore(info.domid, path);
  if (file === undefined) context.out(`${path}\n`);
};
