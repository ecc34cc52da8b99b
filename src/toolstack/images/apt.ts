/**
 * Debian packages, through apt as the machine has it set up: which version it offers, and the package's file.
 * Nothing is installed. Only fetching the lists of packages (`apt-get update`) needs root.
 */
import { spawn } from 'node:child_process';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { ImageError } from './error.ts';
import type { Progress } from './progress.ts';
import { tarFiles } from './tar.ts';
import { complaint, runTool, toolFailure } from './tool.ts';

/** A version of a package that apt offers. */
export interface Offer {
  readonly name: string;
  readonly version: string;
  /** Hash of the package's file, in hexadecimal. */
  readonly sha256: string;
  /** Its fields that name other packages. */
  readonly depends: string;
}

const UPDATE = 'apt-get update';

export class Apt {
  private readonly progress: Progress;
  private readonly root: boolean;
  private updated = false;

  constructor(progress: Progress, root: boolean = process.getuid?.() === 0) {
    this.progress = progress;
    this.root = root;
  }

  /**
   * What apt offers under a name, or null.
   * @param version null: the one that would be installed
   * @throws ImageError if there is no apt here
   */
  async offer(name: string, version: string | null = null): Promise<Offer | null> {
    const wanted = version === null ? name : `${name}=${version}`;
    const found = await runTool('apt-cache', ['show', '--no-all-versions', wanted]);
    if (found.status !== 0) return null;
    const fields = parseFields(found.output);
    const sha256 = fields.get('sha256');
    if (fields.get('package') !== name || !sha256 || !/^[0-9a-f]{64}$/.test(sha256)) return null;
    return { name, version: fields.get('version') ?? '', sha256, depends: fields.get('depends') ?? '' };
  }

  /** All versions of a package that apt knows, newest first as apt orders them. */
  async versions(name: string): Promise<string[]> {
    const found = await runTool('apt-cache', ['madison', name]);
    return [...found.output.matchAll(/^\s*\S+\s+\|\s+(\S+)\s+\|/gm)].map((match) => match[1]!);
  }

  /** Fetches the lists of packages, once, where this user may. @returns whether it did */
  async update(): Promise<boolean> {
    if (this.updated || !this.root) return false;
    this.updated = true;
    this.progress.update(UPDATE, null);
    const { status } = await runTool('apt-get', ['-q', 'update']);
    return status === 0;
  }

  /** What to tell a user who has to make the lists of packages anew. */
  get advice(): string {
    return `if the lists of packages are missing or old, run: ${this.root ? '' : 'sudo '}${UPDATE}`;
  }

  /**
   * Downloads a package.
   * @param directory an empty one
   * @returns the path of its file
   * @throws ImageError
   */
  async download(offer: Offer, directory: string): Promise<string> {
    const label = `${offer.name} ${offer.version}`;
    this.progress.update(label, 0);
    const { status, errors } = await runTool(
      'apt-get',
      [
        '-q',
        '-o',
        'APT::Status-Fd=3',
        ...(this.root ? ['-o', 'APT::Sandbox::User=root'] : []),
        'download',
        `${offer.name}=${offer.version}`,
      ],
      {
        cwd: directory,
        onStatus: (line) => {
          const match = /^dlstatus:[^:]*:([\d.]+)/.exec(line);
          if (match) this.progress.update(label, Number(match[1]) / 100);
        },
      },
    );
    const file = (await readdir(directory)).find((name) => name.endsWith('.deb'));
    if (status !== 0 || !file) {
      throw new ImageError(
        `cannot download the package ${offer.name}: ${complaint(errors, 'apt-get failed')} (${this.advice})`,
      );
    }
    return join(directory, file);
  }
}

/**
 * Reads files out of a package's file without unpacking it to disk.
 * @param wanted the patterns that their paths must match, by a name of the caller's choice. Reading stops when each
 *   was found once.
 * @throws ImageError
 */
export async function filesOfPackage(
  file: string,
  wanted: Readonly<Record<string, RegExp>>,
): Promise<Map<string, { path: string; bytes: Uint8Array }>> {
  const child = spawn('dpkg-deb', ['--fsys-tarfile', file], { stdio: ['ignore', 'pipe', 'ignore'] });
  const failure = toolFailure(child, 'dpkg-deb');
  const found = new Map<string, { path: string; bytes: Uint8Array }>();
  const names = Object.keys(wanted);
  const nameOf = (path: string) => names.find((name) => !found.has(name) && wanted[name]!.test(path));
  const read = async () => {
    for await (const entry of tarFiles(child.stdout!, (path) => nameOf(path) !== undefined)) {
      found.set(nameOf(entry.path)!, entry);
      if (found.size === names.length) break;
    }
  };
  try {
    await Promise.race([read(), failure]);
  } catch (error) {
    if (error instanceof ImageError) throw error;
    throw new ImageError(`the package ${file} cannot be read: ${(error as Error).message}`);
  } finally {
    child.kill();
  }
  return found;
}

/** The fields of a control record; names in lower case, continuation lines dropped. */
function parseFields(record: string): Map<string, string> {
  const fields = new Map<string, string>();
  for (const line of record.split('\n\n')[0]!.split('\n')) {
    const match = /^([A-Za-z][A-Za-z0-9-]*):\s*(.*)$/.exec(line);
    if (match) fields.set(match[1]!.toLowerCase(), match[2]!);
  }
  return fields;
}
