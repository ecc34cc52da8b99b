/**
 * A transaction: a view of the tree with changes of its own, which become visible all together or not at all.
 *
 * The rule is that a committed transaction happened at the moment of its commit. So every node that it looked at,
 * found or not, must be at the commit what it was when it was first looked at: the same generation. Otherwise the
 * commit is refused (EAGAIN) and nothing is changed. Writing looks at the node and at its parent, so nothing is
 * overwritten unseen.
 */
import { nameOf, parentOf } from './path.ts';
import type { Permission } from './permissions.ts';
import { addChild, type Change, dropChild, type Node, type Tree, type View, XenstoreError } from './store.ts';

/** A node as the transaction has it. */
interface Access {
  /** Generation when first seen; 0: there was none. */
  readonly seen: number;
  /** The transaction's own copy; null: it removed it. Without meaning until changed. */
  node: Node | null;
  changed: boolean;
}

export class Transaction implements View {
  readonly id: number;
  private readonly tree: Tree;
  private readonly accesses = new Map<string, Access>();
  private readonly maxAccesses: number;
  /** By how much each domain owns more or fewer nodes. */
  private readonly deltas = new Map<number, number>();
  private readonly changes = new Map<string, Change>();
  /** More nodes were looked at than is allowed: it can only be given up. */
  private overrun = false;

  /** @param maxAccesses how many nodes it may look at */
  constructor(id: number, tree: Tree, maxAccesses: number) {
    this.id = id;
    this.tree = tree;
    this.maxAccesses = maxAccesses;
  }

  get(path: string): Node | undefined {
    const access = this.access(path);
    if (access.changed) return access.node ?? undefined;
    return this.tree.get(path);
  }

  edit(path: string): Node {
    const access = this.access(path);
    if (!access.changed) {
      const node = this.tree.get(path)!;
      access.node = { ...node, children: new Set(node.children) };
      access.changed = true;
    }
    return access.node!;
  }

  create(path: string, value: Uint8Array, permissions: readonly Permission[]): void {
    const access = this.access(path);
    addChild(this.edit(parentOf(path)), nameOf(path));
    access.node = { value, permissions, children: new Set(), childBytes: 0, generation: 0 };
    access.changed = true;
    this.count(permissions[0]!.domid, 1);
  }

  remove(path: string): void {
    const node = this.get(path);
    if (!node) return;
    this.count(node.permissions[0]!.domid, -1);
    const access = this.access(path);
    access.node = null;
    access.changed = true;
    if (this.get(parentOf(path))) dropChild(this.edit(parentOf(path)), nameOf(path));
  }

  setPermissions(path: string, permissions: readonly Permission[]): void {
    const node = this.edit(path);
    this.count(node.permissions[0]!.domid, -1);
    node.permissions = permissions;
    this.count(permissions[0]!.domid, 1);
  }

  owned(domid: number): number {
    return this.tree.owned(domid) + (this.deltas.get(domid) ?? 0);
  }

  changed(change: Change): void {
    const earlier = this.changes.get(change.path);
    if (!earlier) {
      this.changes.set(change.path, { ...change });
      return;
    }
    earlier.exact &&= change.exact;
    earlier.before ??= earlier.permissions;
    earlier.permissions = change.permissions;
  }

  /**
   * Makes the changes in the tree.
   * @param quota how many nodes a domain may own
   * @throws XenstoreError EAGAIN: something that it saw has changed; ENOSPC: a quota. Nothing is changed then.
   */
  commit(quota: (domid: number) => number): void {
    if (this.overrun) throw new XenstoreError('ENOSPC');
    for (const [path, { seen }] of this.accesses) {
      if ((this.tree.get(path)?.generation ?? 0) !== seen) throw new XenstoreError('EAGAIN');
    }
    for (const [domid, delta] of this.deltas) {
      if (delta > 0 && this.owned(domid) > quota(domid)) throw new XenstoreError('ENOSPC');
    }
    for (const [path, { changed, node }] of this.accesses) {
      if (!changed) continue;
      if (node) this.tree.put(path, node);
      else this.tree.take(path);
    }
    for (const change of this.changes.values()) this.tree.changed(change);
  }

  private access(path: string): Access {
    let access = this.accesses.get(path);
    if (!access) {
      if (this.accesses.size >= this.maxAccesses) {
        this.overrun = true;
        throw new XenstoreError('ENOSPC');
      }
      access = { seen: this.tree.get(path)?.generation ?? 0, node: null, changed: false };
      this.accesses.set(path, access);
    }
    return access;
  }

  private count(domid: number, by: number): void {
    this.deltas.set(domid, (this.deltas.get(domid) ?? 0) + by);
  }
}
