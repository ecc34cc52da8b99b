/**
 * Watches: who wants to hear of changes, and where.
 *
 * A watch on a path hears of that node and of all below it. It hears only of what its owner may read: the node, or
 * the node's parent (so that one learns of a node that one was allowed to see coming and going).
 *
 * Events are given out in the order of the changes. A change that a listener makes while it is told of another one
 * waits its turn.
 */
import { domainPath, formerName, isSpecial, parentOf, pathFrom, ROOT } from './path.ts';
import { type Caller, type Permission, Right, rightsOf } from './permissions.ts';
import { type Change, type Node, XenstoreError } from './store.ts';

/** Someone who has watches. */
export interface Watcher {
  readonly caller: Caller;
  /** Numbers that its domain had before, and goes on to use. */
  readonly formerly?: readonly number[];
  /** Something happened at a path: absolute, or relative if the watch is. */
  watchEvent(path: string, token: string): void;
}

interface Watch {
  readonly watcher: Watcher;
  /** Absolute, or special. */
  readonly path: string;
  readonly token: string;
  /** How much of an event's path is not told (the domain's own part, for a relative watch), and what is instead. */
  readonly strip: number;
  readonly prefix: string;
}

export class WatchTable {
  private readonly byPath = new Map<string, Set<Watch>>();
  private readonly byWatcher = new Map<Watcher, Map<string, Watch>>();
  private readonly nodeAt: (path: string) => Node | undefined;
  private readonly queue: (() => void)[] = [];
  private firing = false;

  /** @param nodeAt looks a node up in the tree */
  constructor(nodeAt: (path: string) => Node | undefined) {
    this.nodeAt = nodeAt;
  }

  /**
   * Adds a watch. It fires once, so that its owner looks at what is there already; {@link fireFirst} does it, as
   * the answer to the request has to go first.
   * @param path absolute, relative or special
   * @param limit how many a watcher may have
   * @throws XenstoreError EINVAL: not a path; EEXIST; E2BIG: too many
   */
  add(watcher: Watcher, path: string, token: string, limit: number): void {
    const absolute = pathOf(watcher, path);
    const own = this.byWatcher.get(watcher) ?? new Map<string, Watch>();
    const key = `${absolute}\0${token}`;
    if (own.has(key)) throw new XenstoreError('EEXIST');
    if (own.size >= limit) throw new XenstoreError('E2BIG');
    const relative = !path.startsWith('/') && !path.startsWith('@');
    const former = formerName(path, watcher.caller.domid, watcher.formerly ?? []);
    const strip = relative ? domainPath(watcher.caller.domid).length + 1 : (former?.now.length ?? 0);
    const watch = { watcher, path: absolute, token, strip, prefix: former?.given ?? '' };
    own.set(key, watch);
    this.byWatcher.set(watcher, own);
    const there = this.byPath.get(absolute);
    if (there) there.add(watch);
    else this.byPath.set(absolute, new Set([watch]));
  }

  fireFirst(watcher: Watcher, path: string, token: string): void {
    this.enqueue(() => watcher.watchEvent(path, token));
  }

  /** @throws XenstoreError EINVAL: not a path; ENOENT: no such watch */
  remove(watcher: Watcher, path: string, token: string): void {
    const key = `${pathOf(watcher, path)}\0${token}`;
    const own = this.byWatcher.get(watcher);
    const watch = own?.get(key);
    if (!own || !watch) throw new XenstoreError('ENOENT');
    own.delete(key);
    if (own.size === 0) this.byWatcher.delete(watcher);
    this.unlink(watch);
  }

  removeAll(watcher: Watcher): void {
    for (const watch of this.byWatcher.get(watcher)?.values() ?? []) this.unlink(watch);
    this.byWatcher.delete(watcher);
  }

  /** A watcher's watches: path as it was given, and token. To be added for another one; they do not fire for that. */
  list(watcher: Watcher): [path: string, token: string][] {
    const own = this.byWatcher.get(watcher)?.values() ?? [];
    return [...own].map(({ path, token, strip, prefix }) => [prefix + path.slice(strip), token]);
  }

  /** How many watches a watcher has. */
  count(watcher: Watcher): number {
    return this.byWatcher.get(watcher)?.size ?? 0;
  }

  /** Tells of changes, in order. */
  fire(changes: readonly Change[]): void {
    for (const { path, exact, permissions, before } of changes) {
      const visible = [
        permissions,
        before,
        path === ROOT ? undefined : this.nodeAt(parentOf(path))?.permissions,
      ];
      for (let at = path; ; at = parentOf(at)) {
        this.tell(at, path, visible);
        if (exact || at === ROOT) break;
      }
    }
  }

  /** Tells of a special event. @param permissions who may know */
  fireSpecial(name: string, permissions: readonly Permission[]): void {
    this.tell(name, name, [permissions]);
  }

  private tell(at: string, path: string, visible: readonly (readonly Permission[] | undefined)[]): void {
    for (const watch of this.byPath.get(at) ?? []) {
      const { watcher, token, strip, prefix } = watch;
      const may = visible.some((list) => list && (rightsOf(watcher.caller, list) & Right.read) !== 0);
      if (!may) continue;
      this.enqueue(() => {
        if (this.byPath.get(at)?.has(watch)) watcher.watchEvent(prefix + path.slice(strip), token);
      });
    }
  }

  private enqueue(event: () => void): void {
    this.queue.push(event);
    if (this.firing) return;
    this.firing = true;
    try {
      for (let next = this.queue.shift(); next; next = this.queue.shift()) next();
    } finally {
      this.firing = false;
    }
  }

  private unlink(watch: Watch): void {
    const there = this.byPath.get(watch.path);
    there?.delete(watch);
    if (there?.size === 0) this.byPath.delete(watch.path);
  }
}

function pathOf(watcher: Watcher, path: string): string {
  const { caller, formerly = [] } = watcher;
  const absolute = isSpecial(path) ? path : pathFrom(path, caller.domid, formerly);
  if (absolute === null) throw new XenstoreError('EINVAL');
  return absolute;
}
