/**
 * What a caller may do to the nodes of a view (the tree or a transaction), with the checks of rights and quotas.
 * Paths are absolute and well-formed here.
 *
 * Every operation checks first and changes then: one that throws has changed nothing.
 */
import { childOf, nameOf, parentOf, ROOT } from './path.ts';
import { type Caller, type Permission, Right, rightsOf } from './permissions.ts';
import type { Quota } from './quota.ts';
import { type Node, type View, XenstoreError } from './store.ts';

/** What a node takes of the quota besides its value and the names of its children: a header, and its permissions. */
const NODE_BYTES = 24;
const PERMISSION_BYTES = 8;

export class Operations {
  private readonly view: View;
  private readonly caller: Caller;
  private readonly quota: Quota;

  constructor(view: View, caller: Caller, quota: Quota) {
    this.view = view;
    this.caller = caller;
    this.quota = quota;
  }

  /** @throws XenstoreError ENOENT, EACCES */
  read(path: string): Uint8Array {
    return this.need(path, Right.read).value;
  }

  /** The node whose children are asked for. @throws XenstoreError ENOENT, EACCES */
  directory(path: string): Node {
    return this.need(path, Right.read);
  }

  /** @throws XenstoreError ENOENT, EACCES */
  permissions(path: string): readonly Permission[] {
    return this.need(path, Right.read).permissions;
  }

  /** Writes a node; it and what is missing above it is created. @throws XenstoreError EACCES, ENOSPC */
  write(path: string, value: Uint8Array): void {
    const node = this.find(path, Right.write);
    if (!node) {
      this.create(path, value);
      return;
    }
    this.fits(value.length, node.childBytes, node.permissions.length);
    this.view.edit(path).value = value;
    this.view.changed({ path, exact: false, permissions: node.permissions });
  }

  /** Creates a node; one that exists stays as it is. @throws XenstoreError EACCES, ENOSPC */
  mkdir(path: string): void {
    if (!this.find(path, Right.write)) this.create(path, new Uint8Array(0));
  }

  /**
   * Removes a node and all below it. One that does not exist is well removed if its parent exists.
   * @throws XenstoreError ENOENT, EACCES; EINVAL for the root
   */
  remove(path: string): void {
    const top = this.find(path, Right.write);
    if (path === ROOT) throw new XenstoreError('EINVAL');
    if (!top) {
      if (!this.view.get(parentOf(path))) throw new XenstoreError('ENOENT');
      return;
    }
    // All of them are looked at before the first one goes: a transaction may refuse to look at so many.
    const doomed: [string, Node][] = [[path, top]];
    for (const [at, node] of doomed) {
      for (const name of node.children) {
        const path = childOf(at, name);
        // A transaction that cannot be committed any more may miss nodes that went away under it.
        const child = this.view.get(path);
        if (child) doomed.push([path, child]);
      }
    }
    this.view.get(parentOf(path));
    for (const [at, node] of doomed.reverse()) {
      this.view.remove(at);
      this.view.changed({ path: at, exact: at !== path, permissions: node.permissions });
    }
  }

  /** @throws XenstoreError ENOENT, EACCES; EPERM: the owner is not the caller's to change; ENOSPC */
  setPermissions(path: string, permissions: readonly Permission[]): void {
    const node = this.need(path, Right.write | Right.owner);
    if (!this.caller.privileged) {
      if (permissions[0]!.domid !== node.permissions[0]!.domid) throw new XenstoreError('EPERM');
      if (permissions.length > this.quota.permissions) throw new XenstoreError('ENOSPC');
      this.fits(node.value.length, node.childBytes, permissions.length);
    }
    const before = node.permissions;
    this.view.setPermissions(path, permissions);
    this.view.changed({ path, exact: false, permissions, before });
  }

  private need(path: string, rights: number): Node {
    const node = this.find(path, rights);
    if (!node) throw new XenstoreError('ENOENT');
    return node;
  }

  /** A node with the rights for it, or undefined. That a node is missing is told only to who may ask its parents. */
  private find(path: string, rights: number): Node | undefined {
    const node = this.view.get(path);
    if (node) {
      if ((rightsOf(this.caller, node.permissions) & rights) === rights) return node;
      throw new XenstoreError('EACCES');
    }
    if ((rightsOf(this.caller, this.nearest(path)[1].permissions) & rights) === 0) {
      throw new XenstoreError('EACCES');
    }
    return undefined;
  }

  /** The closest node above a path that exists. */
  private nearest(path: string): [string, Node] {
    for (let at = parentOf(path); ; at = parentOf(at)) {
      const node = this.view.get(at);
      if (node) return [at, node];
    }
  }

  private create(path: string, value: Uint8Array): void {
    const [above, parent] = this.nearest(path);
    const missing: string[] = [];
    for (let at = path; at !== above; at = parentOf(at)) missing.unshift(at);

    let { permissions } = parent;
    if (!this.caller.privileged) {
      permissions = [{ ...permissions[0]!, domid: this.caller.domid }, ...permissions.slice(1)];
      if (this.view.owned(this.caller.domid) + missing.length > this.quota.nodes) {
        throw new XenstoreError('ENOSPC');
      }
      const name = nameOf(missing[0]!).length + 1;
      this.fits(parent.value.length, parent.childBytes + name, parent.permissions.length);
      this.fits(value.length, 0, permissions.length);
    }
    for (const at of missing) {
      this.view.create(at, at === path ? value : new Uint8Array(0), permissions);
    }
    this.view.changed({ path, exact: false, permissions });
  }

  private fits(valueBytes: number, childBytes: number, permissions: number): void {
    if (this.caller.privileged) return;
    const bytes = NODE_BYTES + valueBytes + childBytes + permissions * PERMISSION_BYTES;
    if (bytes >= this.quota.nodeBytes) throw new XenstoreError('ENOSPC');
  }
}
