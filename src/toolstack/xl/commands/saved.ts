/** xl save, restore: domains into files, and out of them. */
import { resolve } from 'node:path';
import { needDomain, type Run, XlError } from '../context.ts';
import { attachConsole } from './console.ts';
import { readConfigFile } from './create.ts';

export const save: Run = async (context, args) => {
  const [qualifier, file, configFile, ...more] = args.operands as [string, string, ...string[]];
  if (more.length > 0) throw new XlError(`${more[0]}: there is a file too many`, 2);
  if (args.has('c') && args.has('p')) throw new XlError('-c and -p exclude each other', 2);
  const { domid } = await needDomain(context, qualifier);
  const config = configFile === undefined ? null : readConfigFile(context, resolve(context.cwd, configFile));
  context.err(`Saving to ${file}\n`);
  const after = args.has('c') ? 'continue' : args.has('p') ? 'pause' : 'destroy';
  await (await context.toolstack()).save(domid, resolve(context.cwd, file), { after, config });
};

export const restore: Run = async (context, args) => {
  for (const letter of ['V', 'A'])
    if (args.has(letter)) throw new XlError('There are no displays here: -V and -A are not supported.');
  const { operands } = args;
  if (operands.length > 2) throw new XlError(`${operands[2]}: there is a file too many`, 2);
  const file = operands.at(-1)!;
  const config = operands.length < 2 ? null : readConfigFile(context, resolve(context.cwd, operands[0]!));
  context.err(`Loading new save file ${file}\n`);
  const toolstack = await context.toolstack();
  const withConsole = args.has('c');
  const paused = args.has('p');
  const { domid } = await toolstack.restore(resolve(context.cwd, file), {
    paused: paused || withConsole,
    config,
  });
  const attached = withConsole ? await attachConsole(toolstack, domid) : null;
  if (withConsole && !paused) await toolstack.unpause(domid);
  if (attached) await attached.over;
};
