/** For tests: the other end of a connection. */
import { XS } from '../../xen/public/xs_wire.ts';
import { Connection, decodeMessages, encodeMessage, payloadStrings } from './protocol.ts';
import { toBytes, toText } from './text.ts';
import type { Xenstore } from './xenstore.ts';

export class TestClient {
  readonly connection: Connection;
  /** Watch events that came, as "path token". */
  readonly events: string[] = [];
  private rest: Uint8Array = new Uint8Array(0);
  private lastRequest = 0;

  constructor(store: Xenstore, domid = 0) {
    this.connection = new Connection(store, domid);
  }

  /** Sends a request. @returns the payload of the answer, or the name of the error with '!' before it */
  ask(type: number, payload: string, transaction = 0): string {
    const id = ++this.lastRequest;
    this.connection.receive(encodeMessage(type, id, transaction, toBytes(payload)));
    const answers = this.take().filter((message) => message.type !== XS.WATCH_EVENT);
    if (answers.length !== 1) throw new Error(`${answers.length} answers to one request`);
    const [answer] = answers as [(typeof answers)[0]];
    if (answer.id !== id || answer.transaction !== transaction)
      throw new Error('the answer is to something else');
    if (answer.type === XS.ERROR) return `!${toText(answer.payload).slice(0, -1)}`;
    if (answer.type !== type) throw new Error(`answer of type ${answer.type} to ${type}`);
    return toText(answer.payload);
  }

  /** Takes what is there: events are kept. */
  take() {
    const waiting = this.connection.take(1 << 24);
    const joined = new Uint8Array(this.rest.length + waiting.length);
    joined.set(this.rest);
    joined.set(waiting, this.rest.length);
    const { messages, rest } = decodeMessages(joined);
    this.rest = rest;
    for (const { type, payload } of messages)
      if (type === XS.WATCH_EVENT) this.events.push(payloadStrings(payload).join(' '));
    return messages;
  }

  /** Events since the last time. */
  takeEvents(): string[] {
    this.take();
    return this.events.splice(0);
  }

  begin(): number {
    return Number(this.ask(XS.TRANSACTION_START, '\0').slice(0, -1));
  }

  end(transaction: number, commit = true): string {
    return this.ask(XS.TRANSACTION_END, commit ? 'T\0' : 'F\0', transaction);
  }

  read(path: string, transaction = 0): string {
    return this.ask(XS.READ, `${path}\0`, transaction);
  }

  write(path: string, value: string, transaction = 0): string {
    return this.ask(XS.WRITE, `${path}\0${value}`, transaction);
  }

  list(path: string, transaction = 0): string {
    return this.ask(XS.DIRECTORY, `${path}\0`, transaction);
  }
}
