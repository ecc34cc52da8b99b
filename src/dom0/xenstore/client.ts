/**
 * The store for Domain 0's own services: strings and callbacks instead of messages. Every call is carried out at
 * once and in one piece, so none of them needs a transaction.
 */
import { absolutePath } from './path.ts';
import type { Caller, Permission } from './permissions.ts';
import { XenstoreError } from './store.ts';
import { toBytes, toText } from './text.ts';
import type { Watcher } from './watch.ts';
import type { Xenstore } from './xenstore.ts';

export class XenstoreClient {
  private readonly store: Xenstore;
  private readonly caller: Caller;

  /** @param domid in whose name and with whose rights; Domain 0 may do all */
  constructor(store: Xenstore, domid = 0) {
    this.store = store;
    this.caller = store.caller(domid);
  }

  /** The value of a node; null if there is none. @throws XenstoreError EACCES, EINVAL */
  read(path: string): string | null {
    return this.ask(() => toText(this.operations.read(this.path(path))));
  }

  /** Names of a node's children; null if there is no such node. @throws XenstoreError EACCES, EINVAL */
  list(path: string): string[] | null {
    return this.ask(() => [...this.operations.directory(this.path(path)).children]);
  }

  /** @throws XenstoreError EACCES, EINVAL */
  permissions(path: string): readonly Permission[] | null {
    return this.ask(() => this.operations.permissions(this.path(path)));
  }

  /** Writes a node. @param permissions what it shall have (also if it exists). @throws XenstoreError */
  write(path: string, value: string, permissions?: readonly Permission[]): void {
    const at = this.path(path);
    this.operations.write(at, toBytes(value));
    if (permissions) this.operations.setPermissions(at, permissions);
    this.store.settle();
  }

  /** @throws XenstoreError */
  mkdir(path: string, permissions?: readonly Permission[]): void {
    const at = this.path(path);
    this.operations.mkdir(at);
    if (permissions) this.operations.setPermissions(at, permissions);
    this.store.settle();
  }

  /** Removes a node and all below it, if it is there. @throws XenstoreError EACCES, EINVAL */
  remove(path: string): void {
    this.ask(() => this.operations.remove(this.path(path)));
    this.store.settle();
  }

  /** @throws XenstoreError */
  setPermissions(path: string, permissions: readonly Permission[]): void {
    this.operations.setPermissions(this.path(path), permissions);
    this.store.settle();
  }

  /**
   * Calls back for what is at a path now, and for every change of it and below it.
   * @param path of a node, or a special event (@introduceDomain, @releaseDomain)
   * @returns ends the watch
   * @throws XenstoreError EINVAL
   */
  watch(path: string, onEvent: (path: string) => void): () => void {
    const watcher: Watcher = { caller: this.caller, watchEvent: (at) => onEvent(at) };
    this.store.watches.add(watcher, path, '', Number.POSITIVE_INFINITY);
    this.store.watches.fireFirst(watcher, path, '');
    return () => this.store.watches.removeAll(watcher);
  }

  private get operations() {
    return this.store.operations(this.caller);
  }

  private path(path: string): string {
    const absolute = absolutePath(path, this.caller.domid);
    if (absolute === null) throw new XenstoreError('EINVAL', `not a xenstore path: ${path}`);
    return absolute;
  }

  private ask<T>(question: () => T): T | null {
    try {
      return question();
    } catch (error) {
      if (error instanceof XenstoreError && error.code === 'ENOENT') return null;
      throw error;
    }
  }
}
