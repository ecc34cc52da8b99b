/**
 * The name server that guests see: it passes questions on to the host's name servers, byte for byte, one after the
 * other until one answers. If none does, addresses are looked up as the host's own programs do it.
 */
import { parseIpv4 } from '../addresses.ts';
import { get16, put16, put32 } from '../bytes.ts';
import type { HostNetwork, HostUdp } from './host.ts';
import type { Clock } from './tcp/types.ts';

export const DNS_PORT = 53;

const HEADER = 12;
const ANSWER_BIT = 0x80;
const RECURSION_AVAILABLE = 0x80;
const SERVER_FAILURE = 2;
const TYPE_A = 1;
const TYPE_AAAA = 28;
const CLASS_IN = 1;
/** Seconds for which an answer of our own holds. */
const TTL = 60;
/** For one name server. */
const PATIENCE_MS = 2500;
const SERVERS_MAX = 3;
/** Questions under way at once. */
const QUESTIONS_MAX = 64;
/** Look-ups by the host under way at once: they take threads that files need too. */
const LOOKUPS_MAX = 1;
/** The longest answer that goes into a datagram without agreement (RFC 1035, section 2.3.4). */
const ANSWER_MAX = 512;

interface Question {
  readonly name: string;
  readonly type: number;
  /** Behind it. */
  readonly end: number;
}

export class DnsForwarder {
  private readonly host: HostNetwork;
  private readonly clock: Clock;
  private readonly sockets = new Set<HostUdp>();
  private questions = 0;
  private lookups = 0;
  private closed = false;

  constructor(host: HostNetwork, clock: Clock) {
    this.host = host;
    this.clock = clock;
  }

  /** Where TCP connections to the name server go. */
  get server(): { address: string; port: number } | null {
    const [first] = this.servers();
    return first ?? null;
  }

  /** @param query the callee's @param answer is called once, or never */
  receive(query: Uint8Array, answer: (bytes: Uint8Array) => void): void {
    if (this.questions >= QUESTIONS_MAX || query.length < HEADER || (query[2]! & ANSWER_BIT) !== 0) return;
    this.questions++;
    this.ask(query).then(
      (bytes) => {
        this.questions--;
        if (!this.closed) answer(bytes);
      },
      () => {
        this.questions--;
      },
    );
  }

  close(): void {
    this.closed = true;
    for (const socket of this.sockets) socket.close();
    this.sockets.clear();
  }

  private async ask(query: Uint8Array): Promise<Uint8Array> {
    for (const server of this.servers()) {
      const answer = await this.askServer(query, server);
      if (answer || this.closed) return answer ?? query;
    }
    return (await this.askHost(query)) ?? failure(query);
  }

  private servers(): { address: string; port: number }[] {
    return this.host
      .nameServers()
      .slice(0, SERVERS_MAX)
      .map((text) => {
        const bracketed = /^\[(.*)\](?::(\d+))?$/.exec(text);
        if (bracketed) return { address: bracketed[1]!, port: Number(bracketed[2] ?? DNS_PORT) };
        const [address, port] = text.split(':') as [string, string?];
        const plain = parseIpv4(address) !== null;
        return plain ? { address, port: Number(port ?? DNS_PORT) } : { address: text, port: DNS_PORT };
      });
  }

  private askServer(
    query: Uint8Array,
    server: { address: string; port: number },
  ): Promise<Uint8Array | null> {
    return new Promise((resolve) => {
      const finish = (answer: Uint8Array | null) => {
        cancel();
        this.sockets.delete(socket);
        socket.close();
        resolve(answer);
      };
      const cancel = this.clock.after(PATIENCE_MS, () => finish(null));
      // A socket for each question: its port is one more number that a forger has to guess.
      const socket = this.host.openUdp(null, {
        onMessage: (bytes, address, port) => {
          if (address !== server.address || port !== server.port) return;
          if (bytes.length < HEADER || get16(bytes, 0) !== get16(query, 0)) return;
          if ((bytes[2]! & ANSWER_BIT) !== 0) finish(bytes);
        },
        onError: () => finish(null),
      });
      this.sockets.add(socket);
      socket.send(query, server.address, server.port);
    });
  }

  private async askHost(query: Uint8Array): Promise<Uint8Array | null> {
    const question = readQuestion(query);
    const family = question?.type === TYPE_A ? 4 : question?.type === TYPE_AAAA ? 6 : null;
    if (!question || family === null || this.lookups >= LOOKUPS_MAX) return null;
    this.lookups++;
    try {
      const addresses = await this.host.lookup(question.name, family);
      return answerWith(query, question, addresses.map(family === 4 ? ipv4Bytes : ipv6Bytes));
    } catch {
      return null;
    } finally {
      this.lookups--;
    }
  }
}

/** The only question of a query in class IN; null: it asks something else. */
function readQuestion(query: Uint8Array): Question | null {
  if ((query[2]! & 0x78) !== 0 || get16(query, 4) !== 1) return null;
  const labels: string[] = [];
  let at = HEADER;
  for (;;) {
    const length = query[at];
    if (length === undefined || length > 63 || at + length >= query.length) return null;
    at++;
    if (length === 0) break;
    labels.push(String.fromCharCode(...query.subarray(at, at + length)));
    at += length;
  }
  const name = labels.join('.');
  if (at + 4 > query.length || !/^[\w.-]{1,253}$/.test(name) || get16(query, at + 2) !== CLASS_IN)
    return null;
  return { name, type: get16(query, at), end: at + 4 };
}

function answerWith(query: Uint8Array, question: Question, addresses: (Uint8Array | null)[]): Uint8Array {
  const found = addresses.filter((address) => address !== null);
  const each = 12 + (found[0]?.length ?? 0);
  const records = found.slice(0, Math.floor((ANSWER_MAX - question.end) / each));
  const bytes = new Uint8Array(question.end + records.length * each);
  bytes.set(query.subarray(0, question.end));
  bytes[2] = ANSWER_BIT | (query[2]! & 1);
  bytes[3] = RECURSION_AVAILABLE;
  put16(bytes, 6, records.length);
  put16(bytes, 8, 0);
  put16(bytes, 10, 0);
  let at = question.end;
  for (const record of records) {
    // The name is that of the question, which follows the header.
    put16(bytes, at, 0xc000 | HEADER);
    put16(bytes, at + 2, question.type);
    put16(bytes, at + 4, CLASS_IN);
    put32(bytes, at + 6, TTL);
    put16(bytes, at + 10, record.length);
    bytes.set(record, at + 12);
    at += each;
  }
  return bytes;
}

function failure(query: Uint8Array): Uint8Array {
  const bytes = query.slice();
  bytes[2] = ANSWER_BIT | (query[2]! & 0x79);
  bytes[3] = RECURSION_AVAILABLE | SERVER_FAILURE;
  return bytes;
}

function ipv4Bytes(text: string): Uint8Array | null {
  const address = parseIpv4(text);
  if (address === null) return null;
  const bytes = new Uint8Array(4);
  put32(bytes, 0, address);
  return bytes;
}

function ipv6Bytes(text: string): Uint8Array | null {
  const [left, right] = text.replace(/%.*$/, '').split('::') as [string, string?];
  const groups = (part: string) => (part === '' ? [] : part.split(':'));
  const [front, back] = [groups(left), groups(right ?? '')];
  const missing = 8 - front.length - back.length;
  if (right === undefined ? missing !== 0 : missing < 0) return null;
  const all = [...front, ...Array<string>(missing).fill('0'), ...back];
  if (!all.every((group) => /^[0-9a-f]{1,4}$/i.test(group))) return null;
  const bytes = new Uint8Array(16);
  for (const [index, group] of all.entries()) put16(bytes, index * 2, Number.parseInt(group, 16));
  return bytes;
}
