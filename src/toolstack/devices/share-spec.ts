/**
 * A shared folder, as users write it: p9= of xl.cfg(5), and the shorter form of the option --share.
 *
 * Beside Xen's keys there is `access=ro` (or just `ro`): the guest cannot change anything in it.
 */
import { resolve } from 'node:path';

/** The message says what is wrong, in one line. */
export class ShareError extends Error {}

export interface ShareSpec {
  /** By which the guest mounts it. */
  readonly tag: string;
  readonly path: string;
  readonly readonly: boolean;
  /** Keys that have no effect here, one line each. */
  readonly warnings: readonly string[];
}

const TAG = /^[A-Za-z0-9_.-]{1,31}$/;
const KEYS = new Set(['tag', 'path', 'security_model', 'backend', 'type', 'access']);
const WITHOUT_EFFECT = new Set(['max-space', 'max-files', 'max-open-files', 'auto-delete']);

/** @throws ShareError */
export function parseShareSpec(text: string): ShareSpec {
  const wrong = (what: string) => new ShareError(`p9 "${text}": ${what}`);
  const values = new Map<string, string>();
  const warnings: string[] = [];
  for (const part of text.split(',').map((each) => each.trim())) {
    if (part === '') continue;
    if (part === 'ro' || part === 'rw') {
      values.set('access', part);
      continue;
    }
    const [, key, value] = /^([a-z_-]+)\s*=\s*(.*)$/.exec(part) ?? [];
    if (key === undefined || value === undefined) throw wrong(`"${part}" is no key=value`);
    if (WITHOUT_EFFECT.has(key)) warnings.push(`p9 "${text}": ${key} has no effect here`);
    else if (!KEYS.has(key)) throw wrong(`unknown key "${key}"`);
    else if (values.has(key)) throw wrong(`${key} is given twice`);
    else values.set(key, value);
  }
  const choose = (key: string, ...known: string[]) => {
    const value = values.get(key) ?? known[0]!;
    if (!known.includes(value)) throw wrong(`${key} ${value} is none of ${known.join(', ')}`);
    return value;
  };
  choose('security_model', 'none');
  choose('type', 'xen_9pfsd', 'qemu');
  choose('backend', '0', 'Domain-0');
  const access = choose('access', 'rw', 'ro', 'w', 'r');
  const tag = values.get('tag');
  if (tag === undefined) throw wrong('tag is missing');
  if (!TAG.test(tag)) throw wrong(`tag "${tag}": up to 31 letters, digits, "_", "." and "-"`);
  const path = values.get('path') ?? '';
  if (path === '') throw wrong('path is missing');
  return { tag, path, readonly: access.startsWith('r') && access !== 'rw', warnings };
}

/** TAG=DIR, perhaps with ",ro" behind it. @throws ShareError */
export function parseShareOption(text: string): ShareSpec {
  const match = /^([^=,]+)=(.+?)(?:,(ro|rw))?$/.exec(text);
  if (!match || !TAG.test(match[1]!)) throw new ShareError(`"${text}": not as TAG=DIR or TAG=DIR,ro`);
  return { tag: match[1]!, path: match[2]!, readonly: match[3] === 'ro', warnings: [] };
}

/** What xl.cfg would say, the same whatever folder names start from. */
export function shareText({ tag, path, readonly }: ShareSpec, folder: string): string {
  return `tag=${tag},path=${resolve(folder, path)},security_model=none,access=${readonly ? 'ro' : 'rw'}`;
}
