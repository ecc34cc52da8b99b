/**
 * `npm run guest:debian`: makes a disk with Debian on it, for guests/debian.cfg.
 */
import { access, mkdir, stat } from 'node:fs/promises';
import { dirname, relative, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { explain } from '../../explain.ts';
import { Failure, STATUS } from '../../failure.ts';
import { UsageError } from '../../options.ts';
import { progressOn, SILENT } from '../progress.ts';
import { copyDisk, debianImage } from './build.ts';

const OUTPUT = '.cache/debian.img';
const USAGE = `Usage: npm run guest:debian -- [options]

Makes a disk with Debian on it, out of Debian's packages as apt has them here, for guests/debian.cfg.

  --output FILE        the disk, a raw image (${OUTPUT})
  --force              replace FILE if it is there
  --size SIZE          of the disk: 2G, 4096M (2G); only what is used takes space
  --packages LIST      packages to install besides those of guests/debian/packages, with commas between
  --container ARCHIVE  begin with a container's image (what "docker save" writes, or a tar file of an OCI
                       image layout), and make a machine of it
  --update             make it anew, with the newest packages, although one like it is in the cache
  --quiet              say nothing of what goes on
  --help
`;

const OPTIONS = {
  output: { type: 'string', default: OUTPUT },
  force: { type: 'boolean', default: false },
  size: { type: 'string', default: '2G' },
  packages: { type: 'string', multiple: true, default: [] as string[] },
  container: { type: 'string' },
  update: { type: 'boolean', default: false },
  quiet: { type: 'boolean', default: false },
  help: { type: 'boolean', default: false },
} as const;

/** Less has no room for Debian, more no use. */
const SIZE_KIB = { least: 256 << 10, most: 2 ** 30 };

async function main(args: readonly string[]): Promise<void> {
  const values = read(args);
  if (values.help) return void process.stdout.write(USAGE);
  const output = resolve(values.output);
  const size = sizeOf(values.size);
  const packages = packagesOf(values.packages);
  const container = values.container === undefined ? null : resolve(values.container);
  if (container) await access(container).catch(() => fail(`${values.container}: no such file`));
  // It may be some guest's disk by now.
  if (!values.force && (await stat(output).catch(() => null)))
    throw new Failure(
      `${values.output} is there already; --force makes it anew, and all that is on it is lost`,
    );

  const begun = Date.now();
  const progress = values.quiet ? SILENT : progressOn(process.stderr);
  const image = await debianImage({ packages, size, container, update: values.update }, { progress });
  await mkdir(dirname(output), { recursive: true });
  await copyDisk(image.path, output);
  if (values.quiet) return;
  const { blocks } = await stat(output);
  for (const proxy of image.unreachable)
    say(`the proxy ${proxy} is this machine's alone: the guest goes without`);
  const seconds = ((Date.now() - begun) / 1000).toFixed(1);
  const from = image.cached ? 'from the cache' : `with the modules of Linux ${image.kernelVersion}`;
  say(`${values.output}: ${blocks >> 11} MiB of ${size >> 10}, ${from}, in ${seconds} s`);
  if (relative(OUTPUT, values.output) === '') say('start it: npx xl create -c guests/debian.cfg');
}

function read(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], options: OPTIONS, strict: true, allowPositionals: false }).values;
  } catch (error) {
    throw new UsageError(`${(error as Error).message.replace(/\. To specify .*/, '')} (--help tells more)`);
  }
}

function sizeOf(text: string): number {
  const [, digits, unit] = /^(\d{1,7})([MG])$/i.exec(text) ?? [];
  const size = Number(digits) * (unit?.toUpperCase() === 'G' ? 2 ** 20 : 2 ** 10);
  if (!(size >= SIZE_KIB.least && size <= SIZE_KIB.most))
    throw new UsageError(`--size ${text}: not a size from 256M to 1024G`);
  return size;
}

function packagesOf(lists: readonly string[]): string[] {
  const names = lists.flatMap((list) => list.split(/[\s,]+/)).filter((name) => name !== '');
  const wrong = names.find((name) => !/^[a-z0-9][a-z0-9+.-]+$/.test(name));
  if (wrong !== undefined)
    throw new UsageError(`--packages: ${JSON.stringify(wrong)} is not a package's name`);
  return names;
}

function say(text: string): void {
  process.stderr.write(`xenolith: ${text}\n`);
}

function fail(message: string): never {
  throw new Failure(message);
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  say(explain(error));
  process.exitCode = error instanceof UsageError ? STATUS.usage : STATUS.failure;
}
