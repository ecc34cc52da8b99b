/** Builds the hello guest (hello.S) with GNU as and ld, from Debian's package binutils. */
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

/** What it prints when all is well, one line for each thing tried. */
export const HELLO_OUTPUT = [
  'hello, a guest of the old kind',
  'ok start_info',
  'ok xen_version',
  'ok xen_version: ENOSYS',
  'ok memory_op',
  'ok machine_to_phys',
  'ok multicall',
  'ok update_va_mapping',
  'ok writable page table refused',
  'ok symbol table',
  'ok set_trap_table',
  'ok invalid opcode',
  'ok page fault',
  'ok bind_virq',
  'ok set_timer_op',
  'ok timer event',
] as const;

const run = promisify(execFile);

/** The kernel's ELF file. @throws if binutils are missing, with the command that installs them */
export async function buildHello(): Promise<Uint8Array> {
  const here = (name: string) => fileURLToPath(new URL(name, import.meta.url));
  const directory = await mkdtemp(join(tmpdir(), 'xenolith-hello-'));
  try {
    const object = join(directory, 'hello.o');
    const kernel = join(directory, 'hello.elf');
    await run('as', ['--64', '-o', object, here('hello.S')]);
    await run('ld', ['-nostdlib', '-z', 'noexecstack', '-T', here('hello.lds'), '-o', kernel, object]);
    return await readFile(kernel);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    throw new Error('as or ld is missing, run: sudo apt-get install binutils');
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
