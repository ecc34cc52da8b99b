/**
 * The daemon: one machine for a user, its interface, and what is left of it for whoever comes after.
 *
 * It holds the lock from before anything else until after everything else. While it runs, a file says which domains
 * it has; a daemon that ends as it should takes that file away, so that one that finds it knows what was lost.
 */
import { randomBytes } from 'node:crypto';
import {
  appendFileSync,
  chmodSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import type { AddressInfo } from 'node:net';
import type { MemoryPolicy } from '../../xen/domctl.ts';
import { ToolstackError } from '../api/errors.ts';
import { LocalToolstack } from '../api/local.ts';
import type { DaemonInfo } from '../api/model.ts';
import { Failure } from '../failure.ts';
import type { ImageOptions } from '../images/index.ts';
import type { StartPcpu } from '../machine.ts';
import { XenstoreFile } from '../node/xenstore-file.ts';
import { XenstoreSocket } from '../node/xenstore-socket.ts';
import { type Acquired, acquire, type Holder, Locked } from './lock.ts';
import { type Place, prepare } from './place.ts';
import type { DaemonControl } from './routes.ts';
import { ApiServer } from './server.ts';

export interface DaemonOptions {
  readonly place: Place;
  readonly version: string;
  readonly startPcpu: StartPcpu;
  readonly images: ImageOptions;
  /** Memory for domains, KiB; left out: what there is. */
  readonly memory?: number;
  /** How many processors the machine has (1). */
  readonly pcpus?: number;
  /** How it deals with memory (equal pages are shared, no more is given than there is). */
  readonly memoryPolicy?: MemoryPolicy;
  /** Listens there, too, for who has the token. */
  readonly listen?: { host: string; port: number };
  /** Ends by itself when it had neither domains nor clients for so many seconds; 0: never. */
  readonly idleExit: number;
  /** Takes a line of the log; left out: the log file does. */
  readonly log?: (line: string) => void;
}

/** How a daemon ended: an exit status, and why if that was not asked for. */
export interface DaemonEnd {
  readonly status: number;
  readonly reason: string | null;
}

/** A log longer than this is put aside, in bytes. */
const LOG_SIZE = 4 << 20;
const IDLE_CHECK_MS = 5000;

/** A daemon runs already. */
export class AlreadyRunning extends Failure {
  constructor(pid: number) {
    super(`a daemon runs already (process ${pid})`);
  }
}

export class Daemon implements DaemonControl {
  /** Settles when it ends. */
  readonly ended: Promise<DaemonEnd>;
  /** What became of the one before, if it died. */
  readonly notice: string | null;
  private readonly options: DaemonOptions;
  private readonly lock: Acquired;
  private readonly started = Date.now();
  private toolstack: LocalToolstack | null = null;
  private server: ApiServer | null = null;
  private xenstore: XenstoreSocket | null = null;
  private kept: XenstoreFile | null = null;
  private end!: (end: DaemonEnd) => void;
  private idleSince = Date.now();
  private stopping = false;

  private constructor(options: DaemonOptions) {
    const { place } = options;
    this.options = options;
    prepare(place);
    this.lock = lockFor(place);
    this.notice = this.lock.dead && whatDied(place, this.lock.dead);
    this.ended = new Promise((resolve) => {
      this.end = resolve;
    });
  }

  /** @throws AlreadyRunning, Failure */
  static async start(options: DaemonOptions): Promise<Daemon> {
    const daemon = new Daemon(options);
    try {
      await daemon.bringUp();
    } catch (error) {
      await daemon.bringDown();
      throw error;
    }
    return daemon;
  }

  info(): DaemonInfo {
    return {
      pid: process.pid,
      version: this.options.version,
      uptime: (Date.now() - this.started) / 1000,
      domains: this.toolstack?.domainNames.length ?? 0,
      notice: this.notice,
    };
  }

  /** Ends it, after the request that asks for it has been answered. */
  stop(force: boolean): void {
    const count = this.toolstack?.domainNames.length ?? 0;
    if (count > 0 && !force) {
      throw new ToolstackError(
        'busy',
        `there ${count === 1 ? 'is 1 domain' : `are ${count} domains`}; --force ends them`,
      );
    }
    setImmediate(() => void this.shutDown({ status: 0, reason: null }));
  }

  /** Ends it with all its domains. */
  async shutDown(end: DaemonEnd): Promise<void> {
    if (this.stopping) return;
    this.stopping = true;
    this.say(`ends${end.reason === null ? '' : `: ${end.reason}`}`);
    await this.bringDown();
    this.end(end);
  }

  /** A line in its log. */
  say(line: string): void {
    const text = `${new Date().toISOString()} ${line}\n`;
    if (this.options.log) this.options.log(text);
    else appendLog(this.options.place.log, text);
  }

  private async bringUp(): Promise<void> {
    const { options } = this;
    const { place, version } = options;
    this.say(`xenolith ${version}, process ${process.pid}`);
    if (this.notice) this.say(this.notice);
    this.toolstack = await LocalToolstack.start({
      startPcpu: options.startPcpu,
      images: options.images,
      version,
      ...(options.memory === undefined ? {} : { memory: options.memory }),
      ...(options.pcpus === undefined ? {} : { pcpus: options.pcpus }),
      ...(options.memoryPolicy === undefined ? {} : { memoryPolicy: options.memoryPolicy }),
      dumpFolder: place.dumps,
      say: (line) => this.say(line),
    });
    this.toolstack.listen(() => this.writeState());
    this.toolstack.dead.catch((error: Error) => {
      this.writeState(`the machine stopped: ${error.message}`);
      this.say(`the machine stopped: ${error.stack ?? error.message}`);
      this.end({ status: 70, reason: error.message });
    });
    this.kept = new XenstoreFile(place.store, this.toolstack.xenstore, (line) => this.say(line));
    this.server = new ApiServer({
      toolstack: this.toolstack,
      daemon: this,
      version,
      say: (line) => this.say(line),
    });
    this.writeState();
    // What stands there is of a daemon that is gone: the lock is ours.
    rmSync(place.socket, { force: true });
    await this.server.listen({ path: place.socket }, null);
    chmodSync(place.socket, 0o600);
    mkdirSync(place.xenstored, { recursive: true });
    this.xenstore = await XenstoreSocket.listen(this.toolstack.xenstore, `${place.xenstored}/socket`);
    if (options.listen) await this.listenAt(options.listen);
    if (options.idleExit > 0) setInterval(() => this.checkIdle(), IDLE_CHECK_MS).unref();
  }

  private async listenAt(where: { host: string; port: number }): Promise<void> {
    const token = randomBytes(32).toString('base64url');
    writeFileSync(this.options.place.token, `${token}\n`, { mode: 0o600 });
    chmodSync(this.options.place.token, 0o600);
    try {
      const server = await this.server!.listen(where, token);
      const { address, port } = server.address() as AddressInfo;
      this.say(`listens at ${address}:${port}; the token is in ${this.options.place.token}`);
    } catch (error) {
      throw new Failure(`${where.host}:${where.port}: ${(error as Error).message}`);
    }
  }

  private async bringDown(): Promise<void> {
    const { place } = this.options;
    await this.server?.close().catch(() => {});
    await this.xenstore?.close().catch(() => {});
    await this.toolstack?.stop().catch((error: Error) => this.say(error.message));
    await this.kept?.close();
    for (const file of [place.socket, place.token, place.state]) rmSync(file, { force: true });
    this.lock.release();
  }

  private checkIdle(): void {
    const busy = (this.toolstack?.domainNames.length ?? 0) > 0 || (this.server?.clients ?? 0) > 0;
    if (busy) this.idleSince = Date.now();
    else if (Date.now() - this.idleSince > this.options.idleExit * 1000)
      void this.shutDown({ status: 0, reason: 'nobody needs it' });
  }

  /** Notes what there is, for whoever finds it when we are dead. */
  private writeState(died: string | null = null): void {
    if (this.stopping) return;
    const { state } = this.options.place;
    const text = JSON.stringify({ domains: this.toolstack?.domainNames ?? [], died });
    try {
      writeFileSync(`${state}.tmp`, text, { mode: 0o600 });
      renameSync(`${state}.tmp`, state);
    } catch (error) {
      this.say(`${state}: ${(error as Error).message}`);
    }
  }
}

function lockFor(place: Place): Acquired {
  try {
    return acquire(place.lock);
  } catch (error) {
    if (error instanceof Locked) throw new AlreadyRunning(error.holder.pid);
    throw new Failure(`${place.lock}: ${(error as Error).message}`);
  }
}

/** What is known of a daemon that died. */
function whatDied(place: Place, dead: Holder): string {
  let domains: string[] = [];
  let why = 'was killed';
  try {
    const state = JSON.parse(readFileSync(place.state, 'utf8')) as { domains?: unknown; died?: unknown };
    if (Array.isArray(state.domains)) domains = state.domains.map(String);
    if (typeof state.died === 'string') why = `died (${state.died})`;
  } catch {
    // It had not come so far, or the file is damaged: then nothing is known of its domains.
  }
  const lost =
    domains.length === 0 ? 'it had no domains' : `its domains ended with it: ${domains.join(', ')}`;
  return `the daemon before this one (process ${dead.pid}, since ${new Date(dead.since).toISOString()}) ${why}; ${lost}`;
}

function appendLog(path: string, text: string): void {
  try {
    if ((statSync(path, { throwIfNoEntry: false })?.size ?? 0) > LOG_SIZE) renameSync(path, `${path}.old`);
    appendFileSync(path, text, { mode: 0o600 });
  } catch {
    // A log that cannot be written (a full disk) is no reason to end anybody's domains.
  }
}
