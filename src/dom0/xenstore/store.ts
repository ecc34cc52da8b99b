/**
 * The tree of the store.
 *
 * Nodes lie in one map by their full path, so that reaching one costs the length of its path and not the size of
 * the tree; a node knows the names of its children. Every change gives a node a new generation, a number that is
 * used once: a transaction that saw a node sees from it whether the node changed since (see transaction.ts).
 *
 * The tree and a transaction offer the same {@link View}; operations.ts is written against it.
 */
import { XENSTORE_PAYLOAD_MAX, type XenstoreErrorName } from '../../xen/public/xs_wire.ts';
import { nameOf, parentOf, ROOT } from './path.ts';
import { type Permission, Right } from './permissions.ts';

/** A request that the protocol answers with an error, by its name. */
export class XenstoreError extends Error {
  readonly code: XenstoreErrorName;

  constructor(code: XenstoreErrorName, message?: string) {
    super(message ?? code);
    this.code = code;
  }
}

export interface Node {
  value: Uint8Array;
  permissions: readonly Permission[];
  /** Names, in the order in which they came. */
  children: Set<string>;
  /** Bytes of the children's names, each with its terminating zero. */
  childBytes: number;
  generation: number;
}

/** What an operation did to the tree, for the watches. */
export interface Change {
  path: string;
  /** Only watches on this very path see it: a node that went away with the one above it. */
  exact: boolean;
  /** Who may know: the node's permissions, and those it had before if they changed. */
  permissions: readonly Permission[];
  before?: readonly Permission[];
}

/** The nodes as an operation sees and changes them. */
export interface View {
  /** A node to look at. Not to be changed. */
  get(path: string): Node | undefined;
  /** A node that exists, to be changed (all but its owner: see {@link setPermissions}). */
  edit(path: string): Node;
  /** Adds a node to a parent that exists. */
  create(path: string, value: Uint8Array, permissions: readonly Permission[]): void;
  /** Takes away a node without children, and its name from its parent if that exists. */
  remove(path: string): void;
  setPermissions(path: string, permissions: readonly Permission[]): void;
  /** How many nodes a domain owns. */
  owned(domid: number): number;
  changed(change: Change): void;
}

/** Adds to a node's list of children. */
export function addChild(node: Node, name: string): void {
  node.children.add(name);
  node.childBytes += name.length + 1;
}

export function dropChild(node: Node, name: string): void {
  if (node.children.delete(name)) node.childBytes -= name.length + 1;
}

export class Tree implements View {
  /** Changes since they were last taken. */
  private changes: Change[] = [];
  private readonly nodes = new Map<string, Node>();
  private readonly owners = new Map<number, number>();
  private generation = 0;

  /** @param owner of the root: Domain 0 */
  constructor(owner = 0) {
    this.put(ROOT, {
      value: new Uint8Array(0),
      permissions: [{ domid: owner, rights: Right.none }],
      children: new Set(),
      childBytes: 0,
      generation: 0,
    });
  }

  get size(): number {
    return this.nodes.size;
  }

  get(path: string): Node | undefined {
    return this.nodes.get(path);
  }

  edit(path: string): Node {
    const node = this.nodes.get(path)!;
    node.generation = ++this.generation;
    return node;
  }

  create(path: string, value: Uint8Array, permissions: readonly Permission[]): void {
    this.put(path, { value, permissions, children: new Set(), childBytes: 0, generation: 0 });
    addChild(this.edit(parentOf(path)), nameOf(path));
  }

  remove(path: string): void {
    this.take(path);
    if (this.nodes.has(parentOf(path))) dropChild(this.edit(parentOf(path)), nameOf(path));
  }

  setPermissions(path: string, permissions: readonly Permission[]): void {
    const node = this.edit(path);
    this.count(node.permissions[0]!.domid, -1);
    node.permissions = permissions;
    this.count(permissions[0]!.domid, 1);
  }

  owned(domid: number): number {
    return this.owners.get(domid) ?? 0;
  }

  changed(change: Change): void {
    this.changes.push(change);
  }

  takeChanges(): Change[] {
    const changes = this.changes;
    this.changes = [];
    return changes;
  }

  /** Puts a node in place as it is, under a new generation. Its parent's children are the caller's business. */
  put(path: string, node: Node): void {
    this.take(path);
    node.generation = ++this.generation;
    this.nodes.set(path, node);
    this.count(node.permissions[0]!.domid, 1);
  }

  /** Takes a node out. Its parent's children are the caller's business. */
  take(path: string): void {
    const node = this.nodes.get(path);
    if (!node) return;
    this.count(node.permissions[0]!.domid, -1);
    this.nodes.delete(path);
  }

  /** Every node, parents before their children and children in their order. */
  *walk(path = ROOT): Generator<[string, Node]> {
    const paths = [path];
    for (let next = paths.pop(); next !== undefined; next = paths.pop()) {
      const node = this.nodes.get(next);
      if (!node) continue;
      yield [next, node];
      const prefix = next === ROOT ? ROOT : `${next}/`;
      for (const name of [...node.children].reverse()) paths.push(prefix + name);
    }
  }

  private count(domid: number, by: number): void {
    const count = this.owned(domid) + by;
    if (count === 0) this.owners.delete(domid);
    else this.owners.set(domid, count);
  }
}

/** The names of a node's children as the protocol sends them: each with a terminating zero. */
export function childList(node: Node): string {
  let list = '';
  for (const name of node.children) list += `${name}\0`;
  return list;
}

/** The longest list of children that fits a message. */
export const CHILD_LIST_MAX = XENSTORE_PAYLOAD_MAX;
