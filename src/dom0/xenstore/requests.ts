/** What each request of the wire protocol does (public/io/xs_wire.h, docs/misc/xenstore.txt of Xen). */
import { XENSTORE_PAYLOAD_MAX, XS } from '../../xen/public/xs_wire.ts';
import { domainPath, isSpecial, pathFrom } from './path.ts';
import { formatPermission, type Permission, parsePermission } from './permissions.ts';
import type { Connection } from './protocol.ts';
import type { Quota } from './quota.ts';
import { childList, XenstoreError } from './store.ts';
import { toBytes, toText } from './text.ts';

/** A message of a client, as it came. */
export interface Request {
  readonly type: number;
  /** Chosen by the client; the answer has it too. */
  readonly id: number;
  /** 0: none. */
  readonly transaction: number;
  readonly payload: Uint8Array;
}

const OK = toBytes('OK\0');
const DOMID_MAX = 0x7fef;

type Handler = (connection: Connection, request: Request) => Uint8Array;

/** Only Domain 0 may. */
const PRIVILEGED: ReadonlySet<number> = new Set([
  XS.CONTROL,
  XS.INTRODUCE,
  XS.RELEASE,
  XS.RESUME,
  XS.SET_TARGET,
]);

const HANDLERS: ReadonlyMap<number, Handler> = new Map<number, Handler>([
  [XS.CONTROL, control],
  [XS.DIRECTORY, directory],
  [XS.DIRECTORY_PART, directoryPart],
  [XS.READ, (connection, request) => operations(connection, request).read(path(connection, request))],
  [XS.GET_PERMS, getPermissions],
  [XS.SET_PERMS, setPermissions],
  [XS.WATCH, watch],
  [XS.UNWATCH, unwatch],
  [XS.RESET_WATCHES, resetWatches],
  [XS.TRANSACTION_START, startTransaction],
  [XS.TRANSACTION_END, endTransaction],
  [XS.WRITE, write],
  [
    XS.MKDIR,
    (connection, request) => {
      operations(connection, request).mkdir(path(connection, request));
      return settled(connection, request);
    },
  ],
  [
    XS.RM,
    (connection, request) => {
      operations(connection, request).remove(path(connection, request));
      return settled(connection, request);
    },
  ],
  [XS.INTRODUCE, introduce],
  [XS.RELEASE, release],
  [XS.GET_DOMAIN_PATH, (_, request) => toBytes(`${domainPath(domid(one(request)))}\0`)],
  [
    XS.IS_DOMAIN_INTRODUCED,
    ({ store }, request) => toBytes(store.isIntroduced(domid(one(request))) ? 'T\0' : 'F\0'),
  ],
  [XS.RESUME, resume],
  [XS.SET_TARGET, setTarget],
]);

/**
 * Carries a request out.
 * @returns the payload of the answer
 * @throws XenstoreError the error that is the answer
 */
export function carryOut(connection: Connection, request: Request): Uint8Array {
  const handler = HANDLERS.get(request.type);
  if (!handler) throw new XenstoreError('ENOSYS');
  if (PRIVILEGED.has(request.type) && !connection.caller.privileged) throw new XenstoreError('EACCES');
  if (request.transaction !== 0 && !connection.transactions.has(request.transaction)) {
    throw new XenstoreError('ENOENT');
  }
  return handler(connection, request);
}

// --- Arguments ---

/** All strings of the payload: each must end with a zero. */
function strings({ payload }: Request): string[] {
  if (payload.at(-1) !== 0) throw new XenstoreError('EINVAL');
  return toText(payload.subarray(0, -1)).split('\0');
}

/** The one string that the payload is. */
function one(request: Request): string {
  const [text, ...more] = strings(request);
  if (more.length > 0) throw new XenstoreError('EINVAL');
  return text!;
}

function absolute(connection: Connection, text: string): string {
  const path = pathFrom(text, connection.caller.domid, connection.formerly);
  if (path === null) throw new XenstoreError('EINVAL');
  return path;
}

function path(connection: Connection, request: Request): string {
  return absolute(connection, one(request));
}

function natural(text: string | undefined, max: number): number {
  const number = Number(text);
  if (text === undefined || !/^\d{1,15}$/.test(text) || number > max) throw new XenstoreError('EINVAL');
  return number;
}

function domid(text: string | undefined): number {
  return natural(text, DOMID_MAX);
}

/** The domain that a request names, which must use the store. */
function introduced({ store }: Connection, text: string | undefined): number {
  const id = domid(text);
  if (!store.isIntroduced(id)) throw new XenstoreError('ENOENT');
  return id;
}

function operations({ store, caller, transactions }: Connection, { transaction }: Request) {
  return store.operations(caller, transactions.get(transaction));
}

/** The answer to a change. Outside a transaction the watches hear of it now. */
function settled({ store }: Connection, { transaction }: Request): Uint8Array {
  if (transaction === 0) store.settle();
  return OK;
}

// --- Nodes ---

function write(connection: Connection, request: Request): Uint8Array {
  const end = request.payload.indexOf(0);
  if (end < 0) throw new XenstoreError('EINVAL');
  const target = absolute(connection, toText(request.payload.subarray(0, end)));
  operations(connection, request).write(target, request.payload.slice(end + 1));
  return settled(connection, request);
}

function directory(connection: Connection, request: Request): Uint8Array {
  const node = operations(connection, request).directory(path(connection, request));
  if (node.childBytes > XENSTORE_PAYLOAD_MAX) throw new XenstoreError('E2BIG');
  return toBytes(childList(node));
}

/**
 * A part of a list of children, from an offset in bytes: the node's generation, then as many names as fit, and an
 * empty one at the end of the list. The client puts the parts together and starts again if the generation changed.
 */
function directoryPart(connection: Connection, request: Request): Uint8Array {
  const [target, start, ...more] = strings(request);
  if (more.length > 0) throw new XenstoreError('EINVAL');
  const node = operations(connection, request).directory(absolute(connection, target!));
  const offset = natural(start, Number.MAX_SAFE_INTEGER);
  const head = `${node.generation}\0`;
  const list = childList(node);
  const room = XENSTORE_PAYLOAD_MAX - head.length - 1;
  const rest = list.slice(offset, offset + room);
  const part = offset + rest.length >= list.length ? `${rest}\0` : rest.slice(0, rest.lastIndexOf('\0') + 1);
  return toBytes(head + part);
}

function getPermissions(connection: Connection, request: Request): Uint8Array {
  const target = one(request);
  let list: readonly Permission[];
  if (isSpecial(target)) {
    if (!connection.caller.privileged) throw new XenstoreError('EACCES');
    list = connection.store.permissionsOfSpecial(target);
  } else {
    list = operations(connection, request).permissions(absolute(connection, target));
  }
  return toBytes(list.map((entry) => `${formatPermission(entry)}\0`).join(''));
}

function setPermissions(connection: Connection, request: Request): Uint8Array {
  const [target, ...texts] = strings(request);
  const list = texts.map((text) => {
    const entry = parsePermission(text);
    if (!entry) throw new XenstoreError('EINVAL');
    return entry;
  });
  if (list.length === 0) throw new XenstoreError('EINVAL');
  if (isSpecial(target!)) {
    if (!connection.caller.privileged) throw new XenstoreError('EACCES');
    connection.store.setPermissionsOfSpecial(target!, list);
    return OK;
  }
  operations(connection, request).setPermissions(absolute(connection, target!), list);
  return settled(connection, request);
}

// --- Watches ---

function pathAndToken(request: Request): [string, string] {
  const [target, token, ...more] = strings(request);
  if (token === undefined || more.length > 0) throw new XenstoreError('EINVAL');
  return [target!, token];
}

function watch(connection: Connection, request: Request): Uint8Array {
  const { store, caller } = connection;
  const [target, token] = pathAndToken(request);
  store.watches.add(
    connection,
    target,
    token,
    caller.privileged ? Number.POSITIVE_INFINITY : store.quota.watches,
  );
  store.watches.fireFirst(connection, target, token);
  return OK;
}

function unwatch(connection: Connection, request: Request): Uint8Array {
  connection.store.watches.remove(connection, ...pathAndToken(request));
  return OK;
}

/** For a kernel that starts anew in its domain (kexec): all that its predecessor left. */
function resetWatches(connection: Connection): Uint8Array {
  connection.store.watches.removeAll(connection);
  connection.transactions.clear();
  return OK;
}

// --- Transactions ---

function startTransaction(connection: Connection, request: Request): Uint8Array {
  const { store, caller, transactions } = connection;
  if (request.transaction !== 0) throw new XenstoreError('EBUSY');
  if (!caller.privileged && transactions.size >= store.quota.transactions) throw new XenstoreError('ENOSPC');
  const transaction = store.startTransaction(caller);
  transactions.set(transaction.id, transaction);
  return toBytes(`${transaction.id}\0`);
}

function endTransaction(connection: Connection, request: Request): Uint8Array {
  const { store, transactions } = connection;
  const transaction = transactions.get(request.transaction);
  if (!transaction) throw new XenstoreError('ENOENT');
  const answer = one(request);
  if (answer !== 'T' && answer !== 'F') throw new XenstoreError('EINVAL');
  transactions.delete(request.transaction);
  if (answer === 'T') {
    store.commit(transaction);
    store.settle();
  }
  return OK;
}

// --- Domains ---

function introduce({ store }: Connection, request: Request): Uint8Array {
  const [id, gfn, port, ...more] = strings(request);
  if (more.length > 0) throw new XenstoreError('EINVAL');
  const domain = domid(id);
  const frame = natural(gfn, Number.MAX_SAFE_INTEGER);
  const channel = natural(port, 0xffffffff);
  if (store.isIntroduced(domain)) return OK;
  if (!store.host?.introduce(domain, frame, channel)) throw new XenstoreError('EINVAL');
  store.introduce(domain);
  return OK;
}

function release(connection: Connection, request: Request): Uint8Array {
  const id = introduced(connection, one(request));
  if (id === connection.caller.domid) throw new XenstoreError('EINVAL');
  connection.store.host?.release(id);
  connection.store.release(id);
  return OK;
}

function resume(connection: Connection, request: Request): Uint8Array {
  connection.store.resumed(introduced(connection, one(request)));
  return OK;
}

function setTarget(connection: Connection, request: Request): Uint8Array {
  const [id, target, ...more] = strings(request);
  if (more.length > 0) throw new XenstoreError('EINVAL');
  connection.store.setTarget(introduced(connection, id), introduced(connection, target));
  return OK;
}

// --- Control ---

const COMMANDS = 'check|print <text>|quota [set <name> <value>|<domid>]|help';

/** Commands of an administrator (xenstore-control). The answer is text. */
function control(connection: Connection, request: Request): Uint8Array {
  const { store } = connection;
  const [command, ...args] = strings(request);
  switch (command) {
    case 'help':
      return toBytes(`Commands: ${COMMANDS}\n\0`);
    case 'print':
      return OK;
    case 'check':
      for (const [at, node] of store.tree.walk()) {
        for (const name of node.children) {
          if (!store.tree.get(at === '/' ? `/${name}` : `${at}/${name}`)) throw new XenstoreError('EIO');
        }
      }
      return OK;
    case 'quota':
      return quota(connection, args);
    default:
      throw new XenstoreError('EINVAL');
  }
}

function quota(connection: Connection, args: string[]): Uint8Array {
  const { store } = connection;
  if (args[0] === 'set') {
    const name = args[1] as keyof Quota;
    if (args.length !== 3 || !Object.hasOwn(store.quota, name)) throw new XenstoreError('EINVAL');
    store.quota[name] = natural(args[2], Number.MAX_SAFE_INTEGER);
    return OK;
  }
  if (args.length === 1) return toBytes(`nodes: ${store.tree.owned(introduced(connection, args[0]))}\n\0`);
  if (args.length > 0) throw new XenstoreError('EINVAL');
  const lines = Object.entries(store.quota).map(([name, value]) => `${name}: ${value}\n`);
  return toBytes(`${lines.join('')}\0`);
}
