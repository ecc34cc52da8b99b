/**
 * A connection to the store: bytes in, bytes out, whatever carries them (a guest's ring, a socket).
 *
 * Output is a queue of messages. An answer goes before the events that its request caused. Who does not take his
 * answers is not served: a connection with too much outstanding looks at no further request (see {@link ready}), and
 * events beyond the limit of bytes are lost to it. So nobody makes the store grow.
 */
import { XENSTORE_PAYLOAD_MAX, type XenstoreErrorName, XS, XSD_SOCKMSG } from '../../xen/public/xs_wire.ts';
import { OutputQueue } from './output.ts';
import type { Caller } from './permissions.ts';
import { carryOut, type Request } from './requests.ts';
import { XenstoreError } from './store.ts';
import { toBytes, toText } from './text.ts';
import type { Transaction } from './transaction.ts';
import type { Watcher } from './watch.ts';
import type { Xenstore } from './xenstore.ts';

/** What a connection of Domain 0 may leave untaken before events are lost to it, in bytes. */
const PRIVILEGED_OUTPUT_BYTES = 16 << 20;

/** Numbers that are remembered of a domain that was forked or restored again and again. */
const FORMERLY_MAX = 32;

/** A message with its header. @param payload at most XENSTORE_PAYLOAD_MAX bytes */
export function encodeMessage(
  type: number,
  request: number,
  transaction: number,
  payload: Uint8Array,
): Uint8Array {
  const bytes = new Uint8Array(XSD_SOCKMSG.size + payload.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(XSD_SOCKMSG.type, type, true);
  view.setUint32(XSD_SOCKMSG.req_id, request, true);
  view.setUint32(XSD_SOCKMSG.tx_id, transaction, true);
  view.setUint32(XSD_SOCKMSG.len, payload.length, true);
  bytes.set(payload, XSD_SOCKMSG.size);
  return bytes;
}

/** A connection as plain data: bytes on their way from and to the guest, and its watches (path, token). */
export interface ConnectionState {
  readonly input: Uint8Array;
  readonly output: Uint8Array;
  /** The guest broke the protocol. */
  readonly broken: boolean;
  /** The numbers by which the domain may call itself: this one, and those from before. */
  readonly domids: readonly number[];
  readonly watches: readonly (readonly [path: string, token: string])[];
}

export class Connection implements Watcher {
  readonly store: Xenstore;
  readonly caller: Caller;
  readonly transactions = new Map<number, Transaction>();
  /** Numbers that the domain had before it was forked or restored. */
  readonly formerly: readonly number[];
  /** There is output where there was none. */
  onOutput: () => void = () => {};
  /** The other side broke the protocol: nothing more is read, the transport ends the connection. */
  broken = false;
  private input = new Uint8Array(0);
  private readonly output = new OutputQueue();
  /** Events that a request caused while it is carried out: they follow its answer. */
  private held: (() => void)[] | null = null;
  private closed = false;

  /** @param domid of the domain at the other end; 0: a client in Domain 0 */
  constructor(store: Xenstore, domid: number, formerly: readonly number[] = []) {
    this.store = store;
    this.formerly = formerly;
    this.caller = store.caller(domid);
  }

  /**
   * Whether it takes input now. What a transport brings all the same is kept, so it should ask.
   */
  get ready(): boolean {
    if (this.broken || this.closed) return false;
    if (this.caller.privileged) return this.output.bytes < PRIVILEGED_OUTPUT_BYTES;
    return this.output.length < this.store.quota.outstanding;
  }

  /** Bytes that wait to be taken. */
  get pending(): number {
    return this.output.bytes;
  }

  /** Takes bytes from the other side, in pieces of any size, and carries out what is complete. */
  receive(bytes: Uint8Array): void {
    if (this.broken || this.closed) return;
    if (this.input.length === 0) this.input = bytes.slice();
    else {
      const joined = new Uint8Array(this.input.length + bytes.length);
      joined.set(this.input);
      joined.set(bytes, this.input.length);
      this.input = joined;
    }
    this.pump();
  }

  /** Up to `max` bytes for the other side. */
  take(max: number): Uint8Array {
    const bytes = this.output.take(max);
    this.pump();
    return bytes;
  }

  watchEvent(path: string, token: string): void {
    if (this.held) this.held.push(() => this.pushEvent(path, token));
    else this.pushEvent(path, token);
  }

  /** What the other side counts on. There must be no open transactions: those cannot be doubled. */
  state(): ConnectionState {
    return {
      input: this.input.slice(),
      output: this.output.remaining(),
      broken: this.broken,
      domids: [...this.formerly, this.caller.domid].slice(-FORMERLY_MAX),
      watches: this.store.watches.list(this),
    };
  }

  /** The connection of a domain that comes from a fork or a file, and does not know it. */
  static of(
    store: Xenstore,
    domid: number,
    { input, output, broken, domids, watches }: ConnectionState,
  ): Connection {
    const formerly = domids.filter((each) => each > 0 && each !== domid);
    const connection = new Connection(store, domid, formerly);
    connection.input = Uint8Array.from(input);
    connection.broken = broken;
    if (output.length > 0) connection.output.push(output);
    for (const [path, token] of watches) {
      try {
        store.watches.add(connection, path, token, store.quota.watches);
      } catch (error) {
        // What cannot be watched here is not.
        if (!(error instanceof XenstoreError)) throw error;
      }
    }
    return connection;
  }

  /** Ends all its transactions and watches, as if it had just been made. */
  reset(): void {
    this.transactions.clear();
    this.store.watches.removeAll(this);
    this.input = new Uint8Array(0);
    this.output.clear();
    this.broken = false;
  }

  /** The other side is gone. */
  close(): void {
    this.reset();
    this.closed = true;
  }

  private pump(): void {
    while (this.ready && this.input.length >= XSD_SOCKMSG.size) {
      const view = new DataView(this.input.buffer, this.input.byteOffset);
      const length = view.getUint32(XSD_SOCKMSG.len, true);
      if (length > XENSTORE_PAYLOAD_MAX) {
        this.broken = true;
        this.input = new Uint8Array(0);
        return;
      }
      const end = XSD_SOCKMSG.size + length;
      if (this.input.length < end) return;
      const request: Request = {
        type: view.getUint32(XSD_SOCKMSG.type, true),
        id: view.getUint32(XSD_SOCKMSG.req_id, true),
        transaction: view.getUint32(XSD_SOCKMSG.tx_id, true),
        payload: this.input.slice(XSD_SOCKMSG.size, end),
      };
      this.input = this.input.subarray(end);
      this.serve(request);
    }
  }

  private serve(request: Request): void {
    this.held = [];
    let type = request.type;
    let payload: Uint8Array;
    try {
      payload = carryOut(this, request);
      if (payload.length > XENSTORE_PAYLOAD_MAX) throw new XenstoreError('E2BIG');
    } catch (error) {
      if (!(error instanceof XenstoreError)) throw error;
      type = XS.ERROR;
      payload = errorPayload(error.code);
    }
    const held = this.held;
    this.held = null;
    this.push(encodeMessage(type, request.id, request.transaction, payload));
    for (const event of held) event();
  }

  private pushEvent(path: string, token: string): void {
    const event = `${path}\0${token}\0`;
    // A path below a watched one can be too long to be told together with the token.
    if (event.length > XENSTORE_PAYLOAD_MAX) return;
    // The same event that was not taken yet tells as much as two of them.
    if (this.output.has(event)) return;
    const limit = this.caller.privileged ? PRIVILEGED_OUTPUT_BYTES : this.store.quota.outputBytes;
    if (this.pending + event.length > limit) return;
    this.push(encodeMessage(XS.WATCH_EVENT, 0, 0, toBytes(event)), event);
  }

  private push(bytes: Uint8Array, event: string | null = null): void {
    if (this.closed) return;
    const first = this.output.length === 0;
    this.output.push(bytes, event);
    if (first) this.onOutput();
  }
}

function errorPayload(code: XenstoreErrorName): Uint8Array {
  return toBytes(`${code}\0`);
}

/** Decodes messages: for clients and tests. Bytes after the last whole message are left over. */
export function decodeMessages(bytes: Uint8Array): { messages: Request[]; rest: Uint8Array } {
  const messages: Request[] = [];
  let at = 0;
  while (bytes.length - at >= XSD_SOCKMSG.size) {
    const view = new DataView(bytes.buffer, bytes.byteOffset + at);
    const end = at + XSD_SOCKMSG.size + view.getUint32(XSD_SOCKMSG.len, true);
    if (end > bytes.length) break;
    messages.push({
      type: view.getUint32(XSD_SOCKMSG.type, true),
      id: view.getUint32(XSD_SOCKMSG.req_id, true),
      transaction: view.getUint32(XSD_SOCKMSG.tx_id, true),
      payload: bytes.slice(at + XSD_SOCKMSG.size, end),
    });
    at = end;
  }
  return { messages, rest: bytes.slice(at) };
}

/** The strings of a payload, each of which ends with a zero. */
export function payloadStrings(payload: Uint8Array): string[] {
  const strings = toText(payload).split('\0');
  if (strings.at(-1) === '') strings.pop();
  return strings;
}
