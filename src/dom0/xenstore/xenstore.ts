/**
 * The store as a whole: the tree, the watches on it and the domains that use it. What speaks to it are connections
 * (protocol.ts: guests' rings and sockets) and clients (client.ts: Domain 0's own services).
 *
 * Requests are carried out one after the other, each in one piece: what happens outside a transaction needs none.
 */

import { Operations } from './operations.ts';
import { isSpecial } from './path.ts';
import { type Caller, type Permission, Right } from './permissions.ts';
import { DEFAULT_QUOTA, type Quota } from './quota.ts';
import { Tree, XenstoreError } from './store.ts';
import { Transaction } from './transaction.ts';
import { WatchTable } from './watch.ts';

/** Special events: a domain came, a domain stopped or went. */
export const INTRODUCE_DOMAIN = '@introduceDomain';
export const RELEASE_DOMAIN = '@releaseDomain';

const DOMAIN_0 = 0;

/** A domain as the store knows it. */
class StoreDomain implements Caller {
  readonly domid: number;
  readonly privileged: boolean;
  target: number | null = null;
  introduced = false;
  /** It has shut down, and this was told. */
  stopped = false;

  constructor(domid: number) {
    this.domid = domid;
    this.privileged = domid === DOMAIN_0;
  }
}

/** What the store asks of the toolstack when a client of its socket wants it. */
export interface XenstoreHost {
  /** INTRODUCE: the domain's ring is in this frame and this port signals it. False: there is no such domain. */
  introduce(domid: number, gfn: number, port: number): boolean;
  /** RELEASE: the domain's ring is to be left. */
  release(domid: number): void;
}

export class Xenstore {
  readonly tree = new Tree();
  readonly watches = new WatchTable((path) => this.tree.get(path));
  readonly quota: Quota;
  host: XenstoreHost | null = null;
  /** Hears the path of every node that changes, after the watches were told. */
  onChange: ((path: string) => void) | null = null;
  private readonly domains = new Map<number, StoreDomain>();
  /** Who may hear of special events, where it was changed. */
  private readonly specialPermissions = new Map<string, readonly Permission[]>();
  private transactions = 0;

  constructor(quota: Partial<Quota> = {}) {
    this.quota = { ...DEFAULT_QUOTA, ...quota };
    this.domain(DOMAIN_0).introduced = true;
    const privileged = this.operations(this.caller(DOMAIN_0));
    privileged.mkdir('/tool/xenstored');
    this.settle();
  }

  /** In whose name a connection of the domain acts. */
  caller(domid: number): Caller {
    return this.domain(domid);
  }

  /** Operations on the tree itself, or inside a transaction. Call {@link settle} after them. */
  operations(caller: Caller, transaction?: Transaction): Operations {
    return new Operations(transaction ?? this.tree, caller, this.quota);
  }

  /** Tells the watches what the last operations changed. */
  settle(): void {
    const changes = this.tree.takeChanges();
    this.watches.fire(changes);
    if (this.onChange) for (const { path } of changes) this.onChange(path);
  }

  startTransaction(caller: Caller): Transaction {
    const maxNodes = caller.privileged ? Number.POSITIVE_INFINITY : this.quota.transactionNodes;
    // 0 means "no transaction", so the identifiers wrap to 1.
    this.transactions = (this.transactions % 0xffffffff) + 1;
    return new Transaction(this.transactions, this.tree, maxNodes);
  }

  /** @throws XenstoreError EAGAIN, ENOSPC. Call {@link settle} after it. */
  commit(transaction: Transaction): void {
    transaction.commit((domid) => (domid === DOMAIN_0 ? Number.POSITIVE_INFINITY : this.quota.nodes));
  }

  /** A domain uses the store from now on. Told by @introduceDomain, once. */
  introduce(domid: number): void {
    const domain = this.domain(domid);
    if (domain.introduced) return;
    domain.introduced = true;
    this.fireSpecial(INTRODUCE_DOMAIN);
  }

  isIntroduced(domid: number): boolean {
    return this.domains.get(domid)?.introduced ?? false;
  }

  /** A domain has shut down but still exists. Told by @releaseDomain, once. */
  stopped(domid: number): void {
    const domain = this.domains.get(domid);
    if (!domain?.introduced || domain.stopped) return;
    domain.stopped = true;
    this.fireSpecial(RELEASE_DOMAIN);
  }

  /** A domain that had shut down goes on (RESUME). */
  resumed(domid: number): void {
    const domain = this.domains.get(domid);
    if (domain) domain.stopped = false;
  }

  /**
   * A domain is gone. The nodes that it owns go with it, and no right of it stays behind for a later domain of the
   * same number. Told by @releaseDomain.
   */
  release(domid: number): void {
    const domain = this.domains.get(domid);
    if (!domain?.introduced || domid === DOMAIN_0) return;
    this.domains.delete(domid);
    this.forget(domid);
    this.settle();
    this.fireSpecial(RELEASE_DOMAIN);
  }

  /** Lets a domain act with the rights of another one. */
  setTarget(domid: number, target: number): void {
    this.domain(domid).target = target;
  }

  /** Who may hear of a special event. @throws XenstoreError EINVAL: there is no such event */
  permissionsOfSpecial(name: string): readonly Permission[] {
    if (!isSpecial(name)) throw new XenstoreError('EINVAL');
    return this.specialPermissions.get(name) ?? [{ domid: DOMAIN_0, rights: Right.none }];
  }

  /** @throws XenstoreError EINVAL: there is no such event */
  setPermissionsOfSpecial(name: string, permissions: readonly Permission[]): void {
    if (name !== INTRODUCE_DOMAIN && name !== RELEASE_DOMAIN) throw new XenstoreError('EINVAL');
    this.specialPermissions.set(name, permissions);
  }

  private fireSpecial(name: string): void {
    this.watches.fireSpecial(name, this.permissionsOfSpecial(name));
  }

  private domain(domid: number): StoreDomain {
    let domain = this.domains.get(domid);
    if (!domain) {
      domain = new StoreDomain(domid);
      this.domains.set(domid, domain);
    }
    return domain;
  }

  private forget(domid: number): void {
    const operations = this.operations(this.caller(DOMAIN_0));
    for (const [path, { permissions }] of [...this.tree.walk()]) {
      if (!this.tree.get(path) || !permissions.some((entry) => entry.domid === domid)) continue;
      if (permissions[0]!.domid === domid) operations.remove(path);
      else
        this.tree.setPermissions(
          path,
          permissions.filter((entry) => entry.domid !== domid),
        );
    }
  }
}
