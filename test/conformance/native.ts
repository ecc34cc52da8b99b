/**
 * The oracle: the host's own CPU. Builds native/oracle.c with the host's C compiler when it is missing or out of date.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync } from 'node:fs';
import { arch, platform } from 'node:os';
import { join } from 'node:path';
import type { Engine } from './engine.ts';
import { type Batch, definitionsForC, Results } from './wire.ts';

const FLAGS = ['-O2', '-Wall', '-Wextra', '-fno-stack-protector', '-mfsgsbase', '-fPIE', '-pie'];
const RESULT_ROOM = 1 << 30;

/** The oracle cannot be had on this host; the message says what to do about it. */
export class OracleUnavailable extends Error {}

/** @param root the project's directory */
function build(root: string): string {
  if (arch() !== 'x64' || platform() !== 'linux') {
    throw new OracleUnavailable(`the oracle needs Linux on x86-64, this is ${platform()} on ${arch()}`);
  }
  const source = join(root, 'test/conformance/native/oracle.c');
  const flags = [...FLAGS, ...definitionsForC()];
  const hash = createHash('sha256')
    .update(readFileSync(source))
    .update(flags.join(' '))
    .digest('hex')
    .slice(0, 16);
  const directory = join(root, '.cache/conformance');
  const binary = join(directory, `oracle-${hash}`);
  if (existsSync(binary)) return binary;
  mkdirSync(directory, { recursive: true });
  const fresh = `${binary}.${process.pid}`;
  const compiler = spawnSync('gcc', [...flags, '-o', fresh, source], { encoding: 'utf8' });
  if (compiler.error) {
    throw new OracleUnavailable('the oracle needs a C compiler: apt-get install gcc libc6-dev');
  }
  if (compiler.status !== 0) throw new Error(`the oracle does not compile:\n${compiler.stderr}`);
  renameSync(fresh, binary);
  return binary;
}

export class NativeEngine implements Engine {
  readonly name = 'native';
  private readonly binary: string;

  /** @throws OracleUnavailable */
  constructor(root: string) {
    this.binary = build(root);
  }

  run(batch: Batch): Results {
    const child = spawnSync(this.binary, [], { input: batch.encoded(), maxBuffer: RESULT_ROOM });
    if (child.error) throw child.error;
    if (child.status !== 0) {
      const how = child.signal ?? `status ${child.status}`;
      throw new Error(`the oracle ended with ${how}: ${child.stderr.toString().trim()}`);
    }
    const results = new Results(child.stdout);
    if (results.offsets.length !== batch.offsets.length) {
      throw new Error(`the oracle gave ${results.offsets.length} results for ${batch.offsets.length} cases`);
    }
    return results;
  }
}
