/** Who may do what to a node. */

/** What a permission entry gives, and what an operation needs. */
export const Right = { none: 0, read: 1, write: 2, both: 3, owner: 4 } as const;

/** One entry of a node's list. The first names the owner (who may do all) and what everybody else may. */
export interface Permission {
  readonly domid: number;
  /** Bits of {@link Right}: read and write. */
  readonly rights: number;
}

/** Who asks. */
export interface Caller {
  readonly domid: number;
  /** Domain 0: may do all, has no quotas. */
  readonly privileged: boolean;
  /** A domain on whose behalf it acts, with that domain's rights (SET_TARGET). */
  readonly target: number | null;
}

const LETTERS = 'nrwb';

/** The rights that a caller has by a list of permissions. */
export function rightsOf(caller: Caller, permissions: readonly Permission[]): number {
  const owner = permissions[0]!;
  if (caller.privileged || owner.domid === caller.domid || owner.domid === caller.target) {
    return Right.both | Right.owner;
  }
  for (const { domid, rights } of permissions.slice(1)) {
    if (domid === caller.domid || domid === caller.target) return rights;
  }
  return owner.rights;
}

/** As the protocol writes one: a letter (n, r, w, b) and a domain. */
export function formatPermission({ domid, rights }: Permission): string {
  return LETTERS[rights]! + domid;
}

/** @returns null if the text is not a permission */
export function parsePermission(text: string): Permission | null {
  const rights = LETTERS.indexOf(text[0] ?? ' ');
  const digits = text.slice(1);
  if (rights < 0 || !/^\d{1,5}$/.test(digits) || Number(digits) > 0x7fff) return null;
  return { domid: Number(digits), rights };
}
