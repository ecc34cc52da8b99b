/**
 * Many domains on one machine, for the benches of scheduling, isolation and scale: a daemon of its own, domains with
 * Debian's kernel and our initramfs, their shells, and what they compute.
 *
 * Everything goes through the interface that users have (the daemon's socket). Throughput is what the guests
 * themselves count (guest/count.c), in their own time.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { fetchKernel, shellInitramfs, unpackedKernel } from '#dist/toolstack/images/index.js';
import { type ConsoleConnection, RemoteToolstack, readDomainConfig } from '#dist/toolstack/index.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const DAEMON = join(ROOT, 'dist/toolstack/daemon/main.js');
const XL = join(ROOT, 'dist/toolstack/xl/main.js');

/** Clock ticks a second in /proc (USER_HZ, the same on every Linux of today). */
const TICKS = 100;
/** For how long an answer may take, in seconds: with many domains at work a turn comes seldom. */
const PATIENCE = 300;

/** Kernel and initramfs as files, and what they are called. */
export interface DomainImages {
  readonly folder: string;
  readonly kernel: string;
  readonly ramdisk: string;
  readonly title: string;
}

/**
 * Makes the images.
 * @param programs C sources in bench/guest, without ".c": they become programs in /bin of the guest (`count` always)
 * @param devices with the modules for disks and networks
 * @throws Error if gcc is missing or fails
 */
export async function makeDomainImages(
  programs: readonly string[] = [],
  devices = false,
): Promise<DomainImages> {
  const folder = mkdtempSync(join(tmpdir(), 'xenolith-domains-'));
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
  const files = [...new Set(['count', ...programs])].map((name) => {
    const output = join(folder, name);
    const source = join(ROOT, `bench/guest/${name}.c`);
    const { status, error } = spawnSync('gcc', ['-O2', '-static', '-o', output, source], {
      stdio: 'inherit',
    });
    if (status !== 0) throw new Error(`${source} cannot be compiled: ${error?.message ?? 'gcc failed'}`);
    return { path: `bin/${name}`, bytes: new Uint8Array(readFileSync(output)), permissions: 0o755 };
  });
  const fetched = await fetchKernel('debian');
  const kernel = join(folder, 'vmlinux');
  writeFileSync(kernel, await unpackedKernel(fetched.kernel));
  const ramdisk = join(folder, 'initramfs');
  writeFileSync(ramdisk, await shellInitramfs({}, devices ? [...fetched.modules, ...files] : files));
  return { folder, kernel, ramdisk, title: `${fetched.package} ${fetched.version}` };
}

/** What a counting guest said: rounds so far, at a time of its own (CLOCK_REALTIME), ns. */
export interface Count {
  readonly rounds: number;
  readonly at: number;
}

/** A domain, and its shell. */
export class BenchDomain {
  readonly domid: number;
  readonly name: string;
  private readonly machine: BenchMachine;
  private connection: ConsoleConnection | null = null;
  private text = '';
  private watcher: () => void = () => {};
  private ended = false;
  private lines = 0;

  constructor(machine: BenchMachine, domid: number, name: string) {
    this.machine = machine;
    this.domid = domid;
    this.name = name;
  }

  /** Opens its console. */
  async attach(replay: 'all' | 'none'): Promise<void> {
    const decoder = new TextDecoder();
    this.connection = await this.machine.toolstack.console(
      this.domid,
      {
        onOutput: (bytes) => {
          this.text += decoder.decode(bytes, { stream: true });
          this.watcher();
          return true;
        },
        onEnd: () => {
          this.ended = true;
          this.watcher();
        },
      },
      replay,
    );
  }

  type(text: string): void {
    this.connection?.type(new TextEncoder().encode(text));
  }

  /** Waits for something on the console, and forgets what stands before its end. @throws Error it does not come */
  see(pattern: RegExp, seconds = PATIENCE): Promise<RegExpExecArray> {
    return new Promise((resolve, reject) => {
      const done = (why: string) => {
        this.watcher = () => {};
        clearTimeout(timer);
        reject(new Error(`${this.name}: ${why} before ${pattern}: ${this.text.slice(-1000)}`));
      };
      const timer = setTimeout(() => done(`${seconds} s passed`), seconds * 1000);
      this.watcher = () => {
        const match = pattern.exec(this.text);
        if (match === null) {
          if (this.ended) done('it ended');
          return;
        }
        this.text = this.text.slice(match.index + match[0].length);
        this.watcher = () => {};
        clearTimeout(timer);
        resolve(match);
      };
      this.watcher();
    });
  }

  /** Waits for the shell of a domain that boots. */
  async ready(seconds = PATIENCE): Promise<void> {
    // guests/initramfs/etc/session
    await this.see(/xenolith;ready./, seconds);
  }

  /** Runs a line of the shell. @returns what it printed */
  async run(line: string, seconds = PATIENCE): Promise<string> {
    const number = ++this.lines;
    this.type(`${line}\necho =end"" ${number}=\n`);
    const match = await this.see(new RegExp(`([\\s\\S]*?)=end ${number}=\\r?\\n`), seconds);
    return match[1]!.replaceAll('\r', '');
  }

  /** Starts to compute (guest/count.c); the shell waits. */
  async startCounting(): Promise<void> {
    this.type('count\n');
    await this.see(/count ready\r?\n/);
  }

  /** How far it is. Of a fork that was made from a domain that counts, too. */
  async count(seconds = PATIENCE): Promise<Count> {
    this.type('\n');
    const [, rounds, at] = await this.see(/count (\d+) (\d+)\r?\n/, seconds);
    return { rounds: Number(rounds), at: Number(at) };
  }

  /** Rounds between two moments, in ms of Date.now(), of which it took note itself: nobody asks meanwhile. */
  async counted(from: number, to: number, seconds = PATIENCE): Promise<number> {
    this.type(`${Math.round(from * 1e6)} ${Math.round(to * 1e6)}\n`);
    const [, rounds] = await this.see(/count (\d+)\r?\n/, seconds);
    return Number(rounds);
  }

  async stopCounting(): Promise<void> {
    this.type('q\n');
    await this.run('true');
  }

  detach(): void {
    this.connection?.close();
    this.connection = null;
  }

  async destroy(): Promise<void> {
    this.detach();
    await this.machine.toolstack.destroy(this.domid);
  }
}

export interface BenchDomainOptions {
  readonly name: string;
  /** MiB. */
  readonly memory: number;
  /** Further lines of its configuration, as xl.cfg(5) has them. */
  readonly config?: string;
}

/** A daemon of its own with a machine. */
export class BenchMachine {
  readonly toolstack: RemoteToolstack;
  readonly pid: number;
  private readonly folder: string;
  private readonly child: ChildProcess;
  private readonly images: DomainImages;
  private output = '';
  private dead = false;

  private constructor(folder: string, child: ChildProcess, images: DomainImages) {
    this.folder = folder;
    this.child = child;
    this.images = images;
    this.pid = child.pid!;
    this.toolstack = new RemoteToolstack({ socketPath: join(folder, 'socket') });
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.output = (this.output + text).slice(-20_000);
    });
    child.on('exit', () => {
      this.dead = true;
    });
    process.on('exit', this.kill);
  }

  private readonly kill = (): void => {
    if (!this.dead) this.child.kill('SIGKILL');
  };

  /** @param options of the daemon's own command line */
  static async start(images: DomainImages, options: readonly string[] = []): Promise<BenchMachine> {
    const folder = join(mkdtempSync(join(images.folder, 'run-')), 'd');
    mkdirSync(folder, { mode: 0o700 });
    const child = spawn(process.execPath, [DAEMON, ...options], {
      env: { ...process.env, XENOLITH_DIR: folder },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    const machine = new BenchMachine(folder, child, images);
    for (;;) {
      try {
        await machine.toolstack.daemon();
        return machine;
      } catch (error) {
        if (machine.dead) throw new Error(`the daemon ended: ${machine.output}`);
        if (!(error instanceof Error)) throw error;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
  }

  /** Makes a domain with a shell that takes lines, and lets it boot. Await {@link BenchDomain.ready} for the shell. */
  async create({ name, memory, config = '' }: BenchDomainOptions): Promise<BenchDomain> {
    const { kernel, ramdisk } = this.images;
    const text = [
      `name="${name}"`,
      `kernel="${kernel}"`,
      `ramdisk="${ramdisk}"`,
      'extra="console=hvc0 loglevel=3 xenolith.script"',
      `memory=${memory}`,
      config,
    ].join('\n');
    const read = readDomainConfig([{ text, name }], ROOT);
    const { domid } = await this.toolstack.create(read.config, true);
    const domain = new BenchDomain(this, domid, name);
    await domain.attach('all');
    await this.toolstack.unpause(domid);
    return domain;
  }

  /** Makes copies of a domain, each with its console open. */
  async fork(parent: BenchDomain, count: number, paused = false): Promise<BenchDomain[]> {
    const infos = await this.toolstack.fork(parent.domid, count, paused);
    const forks = infos.map(({ domid, name }) => new BenchDomain(this, domid, name));
    for (const fork of forks) await fork.attach('none');
    return forks;
  }

  /** Runs xl to its end. @returns what it printed, and for how long it was a process, ms */
  async xl(...args: string[]): Promise<{ stdout: string; milliseconds: number }> {
    const started = performance.now();
    const child = spawn(process.execPath, [XL, ...args], {
      env: { ...process.env, XENOLITH_DIR: this.folder },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (part: string) => {
      stdout += part;
    });
    child.stderr.setEncoding('utf8').on('data', (part: string) => {
      stderr += part;
    });
    return new Promise((resolve, reject) => {
      child.on('error', reject);
      child.on('close', (status) => {
        if (status === 0) resolve({ stdout, milliseconds: performance.now() - started });
        else reject(new Error(`xl ${args.join(' ')}: status ${status}: ${stderr}`));
      });
    });
  }

  /** CPU time so far of the daemon's busiest thread, which is the processor's, in seconds. */
  get processorSeconds(): number {
    const ticks = readdirSync(`/proc/${this.pid}/task`).map((thread) => {
      const stat = readFileSync(`/proc/${this.pid}/task/${thread}/stat`, 'latin1');
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      return Number(fields[11]) + Number(fields[12]);
    });
    return Math.max(...ticks) / TICKS;
  }

  /** Memory of the host that the daemon holds now, MiB. */
  get residentMiB(): number {
    const status = readFileSync(`/proc/${this.pid}/status`, 'latin1');
    return Number(/^VmRSS:\s*(\d+) kB/m.exec(status)![1]) / 1024;
  }

  async end(): Promise<void> {
    process.off('exit', this.kill);
    if (this.dead) return;
    await new Promise<void>((resolve) => {
      this.child.once('exit', () => resolve());
      this.child.kill('SIGKILL');
    });
  }
}

/** Rounds a second of each domain over a window that begins now, all of them counting. */
export async function rates(domains: readonly BenchDomain[], seconds: number): Promise<number[]> {
  const from = Date.now();
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  const to = Date.now();
  const counts = await Promise.all(domains.map((domain) => domain.counted(from, to)));
  return counts.map((rounds) => rounds / ((to - from) / 1000));
}
