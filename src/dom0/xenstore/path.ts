/** Paths of the store. */
import { XENSTORE_ABS_PATH_MAX, XENSTORE_REL_PATH_MAX } from '../../xen/public/xs_wire.ts';

export const ROOT = '/';

/** Where a domain's own part of the store begins. */
export function domainPath(domid: number): string {
  return `/local/domain/${domid}`;
}

/** The absolute form of a path: a relative one starts in the domain's own part. null: not a path. */
export function absolutePath(path: string, domid: number): string | null {
  if (path.startsWith('/')) return isPath(path) ? path : null;
  if (path.startsWith('@') || path.length > XENSTORE_REL_PATH_MAX) return null;
  const absolute = `${domainPath(domid)}/${path}`;
  return isPath(absolute) ? absolute : null;
}

/** A domain, or its back ends, by its number. */
const NUMBERED = /^(\/local\/domain\/0\/backend\/[^/]+\/|\/local\/domain\/)(\d{1,5})(?=\/|$)/;

/**
 * A domain that was forked, or restored, goes on to call itself by the numbers that it had before.
 * @returns how such a path begins, and what stands for that now; null: it names no domain by such a number
 */
export function formerName(
  path: string,
  domid: number,
  formerly: readonly number[],
): { given: string; now: string } | null {
  if (formerly.length === 0) return null;
  const match = NUMBERED.exec(path);
  if (!match || !formerly.includes(Number(match[2]))) return null;
  return { given: match[0], now: `${match[1]}${domid}` };
}

/** {@link absolutePath} of a path as such a domain gives it. */
export function pathFrom(path: string, domid: number, formerly: readonly number[]): string | null {
  const former = formerName(path, domid, formerly);
  return absolutePath(former === null ? path : former.now + path.slice(former.given.length), domid);
}

/** Events that are not about a node: @introduceDomain, @releaseDomain. */
export function isSpecial(path: string): boolean {
  return /^@[A-Za-z0-9\-_@]+$/.test(path) && path.length <= XENSTORE_REL_PATH_MAX;
}

/** Absolute, of the characters that the protocol allows, without empty parts. */
export function isPath(path: string): boolean {
  if (path === ROOT) return true;
  return path.length <= XENSTORE_ABS_PATH_MAX && /^(\/[A-Za-z0-9\-_@]+)+$/.test(path);
}

export function parentOf(path: string): string {
  const slash = path.lastIndexOf('/');
  return slash <= 0 ? ROOT : path.slice(0, slash);
}

export function nameOf(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}

export function childOf(path: string, name: string): string {
  return path === ROOT ? ROOT + name : `${path}/${name}`;
}
