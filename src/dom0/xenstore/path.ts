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
