/**
 * A physical processor: the loop of one worker thread, and how Domain 0's thread speaks to it.
 *
 * To the pCPU go requests ("call this, with these arguments") and signals (two numbers, no answer), through a
 * mailbox in machine memory, because a busy worker never looks at its host's message queue. From the pCPU come
 * messages by the host's own way (`post`), which works from a busy thread. Nothing here knows what the requests
 * mean, nor which host this is.
 */
import { HaltPoll } from './halt-poll.ts';
import type { MailboxReceiver, MailboxSender } from './mailbox.ts';

/** What runs on the processor. */
export interface PcpuWork {
  /**
   * Runs for one slice.
   * @returns 0: more to do; otherwise nanoseconds for which nothing will happen (Infinity: until somebody calls).
   */
  runSlice(): number;
  /** Serves a request. What it throws is handed to the caller. */
  call(method: string, args: readonly unknown[]): unknown;
  signal(a: number, b: number): void;
}

/** A failure, as it crosses threads. */
export interface Failure {
  name: string;
  message: string;
  /** Of errors that have one. */
  errno?: number;
}

/** What a pCPU posts to Domain 0's thread. */
export type PcpuMessage =
  | { kind: 'ready' }
  | { kind: 'reply'; id: number; value: unknown }
  | { kind: 'failure'; id: number; failure: Failure }
  /** There is room in the mailbox again. */
  | { kind: 'room' }
  /** What the work itself wants to tell. */
  | { kind: 'notify'; value: unknown }
  /** The processor stopped on an error of our own. */
  | { kind: 'panic'; message: string; stack: string };

/** The request that ends the loop. */
const STOP = '';

type Request = readonly [id: number, method: string, args: readonly unknown[]];

/**
 * Runs a processor until it is told to stop, or until its work throws: that is posted as a panic.
 * @param now a clock, ms
 */
export function runPcpu(
  mailbox: MailboxReceiver,
  work: PcpuWork,
  post: (message: PcpuMessage) => void,
  now: () => number,
): void {
  post({ kind: 'ready' });
  const sleeper = new Sleeper(mailbox, now);
  try {
    for (;;) {
      const doorbell = mailbox.doorbell;
      if (mailbox.pending && !serve(mailbox, work, post)) return;
      const idle = work.runSlice();
      if (idle > 0) sleeper.sleep(doorbell, idle / 1e6);
    }
  } catch (error) {
    const { name, message } = failureOf(error);
    post({ kind: 'panic', message: `${name}: ${message}`, stack: (error as Error).stack ?? '' });
  }
}

/** Waits for the doorbell. */
class Sleeper {
  private readonly mailbox: MailboxReceiver;
  private readonly now: () => number;
  private readonly poll = new HaltPoll();

  constructor(mailbox: MailboxReceiver, now: () => number) {
    this.mailbox = mailbox;
    this.now = now;
  }

  /** Until the doorbell is no longer at `doorbell`, or for so many milliseconds (Infinity: for ever). */
  sleep(doorbell: number, milliseconds: number): void {
    const { mailbox, poll } = this;
    const start = this.now();
    const end = start + Math.min(poll.milliseconds, milliseconds);
    let now = start;
    for (; now < end; now = this.now()) if (mailbox.doorbell !== doorbell) return;
    poll.slept(now);
    mailbox.wait(doorbell, Math.max(0, start + milliseconds - now));
    poll.woke(this.now());
  }
}

/** Serves all that lies in the mailbox; false once told to stop. */
function serve(mailbox: MailboxReceiver, work: PcpuWork, post: (message: PcpuMessage) => void): boolean {
  for (let mail = mailbox.receive(); mail !== null; mail = mailbox.receive()) {
    if (mail.kind === 'signal') {
      work.signal(mail.a, mail.b);
      continue;
    }
    const [id, method, args] = JSON.parse(mail.text) as Request;
    if (method === STOP) return false;
    try {
      post({ kind: 'reply', id, value: work.call(method, args) });
    } catch (error) {
      post({ kind: 'failure', id, failure: failureOf(error) });
    }
  }
  return true;
}

function failureOf(error: unknown): Failure {
  if (!(error instanceof Error)) return { name: 'Error', message: String(error) };
  const { errno } = error as { errno?: unknown };
  const name = error.name === 'Error' ? error.constructor.name : error.name;
  return { name, message: error.message, ...(typeof errno === 'number' ? { errno } : {}) };
}

/** A request failed on the processor's side, or the processor is gone. */
export class PcpuError extends Error {
  /** The errno of the error there, where it had one. */
  readonly errno: number | undefined;

  constructor(failure: Failure) {
    super(failure.message);
    this.name = failure.name;
    this.errno = failure.errno;
  }
}

interface Pending {
  resolve: (value: unknown) => void;
  reject: (error: Error) => void;
}

/** The end on Domain 0's thread. */
export class PcpuClient {
  /** Settles when the processor runs, or fails to start. */
  readonly ready: Promise<void>;
  private readonly mailbox: MailboxSender;
  private readonly onNotify: (value: unknown) => void;
  private readonly onPanic: (error: Error) => void;
  private readonly pending = new Map<number, Pending>();
  private started!: Pending;
  private nextId = 1;
  private gone: Error | null = null;

  /** @param onPanic the processor is gone, and not because it was asked to stop. */
  constructor(
    mailbox: MailboxSender,
    onNotify: (value: unknown) => void,
    onPanic: (error: Error) => void = () => {},
  ) {
    this.mailbox = mailbox;
    this.onNotify = onNotify;
    this.onPanic = onPanic;
    this.ready = new Promise((resolve, reject) => {
      this.started = { resolve: () => resolve(), reject };
    });
    // Nobody has to look at it: a call made on a dead processor fails with the same error.
    this.ready.catch(() => {});
  }

  call(method: string, args: readonly unknown[]): Promise<unknown> {
    if (this.gone) return Promise.reject(this.gone);
    const id = this.nextId++;
    return new Promise((resolve, reject) => {
      this.pending.set(id, { resolve, reject });
      this.mailbox.send(JSON.stringify([id, method, args] satisfies Request));
    });
  }

  signal(a: number, b: number): void {
    if (!this.gone) this.mailbox.signal(a, b);
  }

  /** Asks the loop to end after its current slice. */
  stop(): void {
    if (this.gone) return;
    this.mailbox.send(JSON.stringify([0, STOP, []] satisfies Request));
    this.end(new PcpuError({ name: 'Stopped', message: 'the machine was switched off' }));
  }

  /** Takes what the processor posted. */
  receive(message: PcpuMessage): void {
    switch (message.kind) {
      case 'ready':
        this.started.resolve(undefined);
        break;
      case 'room':
        this.mailbox.flush();
        break;
      case 'notify':
        this.onNotify(message.value);
        break;
      case 'panic':
        this.fail(new PcpuError({ name: 'Panic', message: message.message }), message.stack);
        break;
      case 'reply':
        this.take(message.id)?.resolve(message.value);
        break;
      case 'failure':
        this.take(message.id)?.reject(new PcpuError(message.failure));
    }
  }

  /** The processor died: every call that waits, and every later one, fails with this. */
  fail(error: Error, stack?: string): void {
    if (this.gone) return;
    if (stack) error.stack = stack;
    this.end(error);
    this.onPanic(error);
  }

  private end(error: Error): void {
    this.gone = error;
    this.started.reject(error);
    for (const { reject } of this.pending.values()) reject(error);
    this.pending.clear();
  }

  private take(id: number): Pending | undefined {
    const pending = this.pending.get(id);
    this.pending.delete(id);
    return pending;
  }
}

/** The same methods, each answering later: an object that lives on a processor, seen from another thread. */
export type Remote<T> = {
  readonly [K in keyof T as T[K] extends (...args: never[]) => unknown ? K : never]: T[K] extends (
    ...args: infer A
  ) => infer R
    ? (...args: A) => Promise<Awaited<R>>
    : never;
};

/** An object whose every method is a request to the processor. Arguments must be plain JSON data. */
export function remote<T extends object>(client: PcpuClient): Remote<T> {
  return new Proxy({} as Remote<T>, {
    get(_target, method) {
      // A promise resolved with this object asks for `then`; that one is not the processor's.
      if (typeof method !== 'string' || method === 'then') return undefined;
      return (...args: unknown[]) => client.call(method, args);
    },
  });
}

/**
 * The other half of {@link remote}, on the processor: calls a method by name.
 * @throws RangeError if the object's class has no such method
 */
export function dispatch(target: object, method: string, args: readonly unknown[]): unknown {
  const prototype = Object.getPrototypeOf(target) as Record<string, unknown>;
  const found = method !== 'constructor' && Object.hasOwn(prototype, method) ? prototype[method] : undefined;
  if (typeof found !== 'function') throw new RangeError(`no such request: ${method}`);
  return found.apply(target, args);
}
