/** xl create, config-update: domains from configurations. */
import { readFileSync } from 'node:fs';
import type { DomainConfig } from '../../api/model.ts';
import { SHUTDOWN_REASONS } from '../../api/names.ts';
import { type ConfigSource, OWN_PREFIX, OWN_RAMDISK, readDomainConfig } from '../../config/domain-config.ts';
import { fetchKernel, KERNEL_NAMES, progressOn, shellInitramfs, unpackedKernel } from '../../images/index.ts';
import { type Arguments, needDomain, type Run, type XlContext, XlError } from '../context.ts';
import { domainJson, indented } from '../json.ts';
import { attachConsole } from './console.ts';

export const create: Run = async (context, args) => {
  for (const letter of ['V', 'A'])
    if (args.has(letter)) throw new XlError('There are no displays here: -V and -A are not supported.');
  const quiet = args.has('q');
  const config = readConfig(context, args, args.operands, quiet);
  if (args.has('n') || context.dryRun) {
    context.out(`${indented(domainJson(config))}\n`);
    return;
  }
  const toolstack = await context.toolstack();
  await fetchImages(config, quiet);
  const withConsole = args.has('c');
  const { domid } = await toolstack.create(config, args.has('p') || withConsole);
  const attached = withConsole ? await attachConsole(toolstack, domid) : null;
  if (withConsole && !args.has('p')) await toolstack.unpause(domid);
  if (attached) await attached.over;
  if (args.has('F')) await foreground(context, domid);
};

/** Waits until the domain is gone; a new one in its place is not waited for. */
async function foreground(context: XlContext, domid: number): Promise<void> {
  const toolstack = await context.toolstack();
  const event = await toolstack.wait(domid, 'shutdown');
  if (event.kind === 'shutdown') {
    context.err(`Domain ${domid} has shut down, reason code ${SHUTDOWN_REASONS.indexOf(event.reason!)}\n`);
    await toolstack.wait(domid, 'death');
  }
  context.err(`Domain ${domid} has been destroyed.\n`);
}

export const configUpdate: Run = async (context, args) => {
  const [qualifier, ...operands] = args.operands as [string, ...string[]];
  const { domid } = await needDomain(context, qualifier);
  const config = readConfig(context, args, operands, args.has('q'));
  if (args.has('d') || context.dryRun) context.out(`${indented(domainJson(config))}\n`);
  if (context.dryRun) return;
  context.err(`setting dom${domid} configuration\n`);
  await (await context.toolstack()).setConfiguration(domid, config);
};

/** What a file says. */
export function readConfigFile(context: XlContext, file: string): DomainConfig {
  const { config, warnings } = readDomainConfig([{ text: read(file), name: file }], context.cwd);
  for (const warning of warnings) context.err(`WARNING: ${warning}\n`);
  return config;
}

/** What a file, and words such as key=value, say. */
function readConfig(
  context: XlContext,
  args: Arguments,
  operands: readonly string[],
  quiet: boolean,
): DomainConfig {
  let file = args.value('f');
  const extra: string[] = [];
  for (const operand of operands) {
    if (operand.includes('=')) extra.push(operand);
    else if (file === undefined) file = operand;
    else throw new XlError(`${operand}: there is a configuration file already`, 2);
  }
  const sources: ConfigSource[] = [];
  if (file !== undefined && file !== '/dev/null') sources.push({ text: read(file), name: file });
  if (extra.length > 0) sources.push({ text: extra.join('\n'), name: '<command line>' });
  if (!quiet) context.err(`Parsing config from ${file ?? '<command line>'}\n`);
  const { config, warnings } = readDomainConfig(sources, context.cwd);
  for (const warning of warnings) context.err(`WARNING: ${warning}\n`);
  return config;
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const reason = code === 'ENOENT' ? 'No such file or directory' : message;
    throw new XlError(`Failed to read config file: ${file}: ${reason}`);
  }
}

/** Kernels of Debian's come over the network: here, where somebody sees how far they are. The daemon finds them kept. */
async function fetchImages({ kernel, ramdisk }: DomainConfig, quiet: boolean): Promise<void> {
  const options = quiet ? {} : { progress: progressOn(process.stderr) };
  const name = KERNEL_NAMES.find((each) => kernel === OWN_PREFIX + each);
  if (name) await unpackedKernel((await fetchKernel(name, options)).kernel, options);
  if (ramdisk === OWN_RAMDISK) await shellInitramfs(options);
}
