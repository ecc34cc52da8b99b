/**
 * The part of the store that outlasts its daemon: what belongs to Domain 0 itself and is of no domain and no device
 * that runs now. Domains end with the daemon, and whatever is of them ends too.
 *
 * As text: JSON, nodes with parents before their children; a value is one character 0 to 255 for each byte.
 */
import { isPath, ROOT } from './path.ts';
import { type Permission, Right } from './permissions.ts';
import { toBytes, toText } from './text.ts';
import type { Xenstore } from './xenstore.ts';

const DOMAIN_0 = 0;
const VERSION = 1;
/** Of domains and devices that run, and what the store says of itself. */
const PASSING = /^\/(vm|tool\/xenstored|local\/domain\/(0\/(backend|error|device)|[1-9]\d*))(\/|$)/;

interface LastingText {
  readonly version: typeof VERSION;
  readonly nodes: readonly (readonly [path: string, value: string, others: number])[];
}

/** A change at that path may be one of what lasts. */
export function lasts(path: string): boolean {
  return !PASSING.test(path);
}

/** What is to be kept of a store. */
export function lastingText(store: Xenstore): string {
  const nodes: [string, string, number][] = [];
  const kept = new Set<string>();
  for (const [path, { value, permissions }] of store.tree.walk()) {
    const owner = permissions[0]!;
    const parent = path.slice(0, path.lastIndexOf('/')) || ROOT;
    if (owner.domid !== DOMAIN_0 || !lasts(path) || (path !== ROOT && !kept.has(parent))) continue;
    kept.add(path);
    // What single domains may do ends with them: another one will have the same number.
    nodes.push([path, toText(value), owner.rights]);
  }
  return JSON.stringify({ version: VERSION, nodes } satisfies LastingText);
}

/**
 * Puts what was kept into a store, before anybody uses it.
 * @throws Error: the text is not what {@link lastingText} wrote; nothing was changed
 */
export function restoreLasting(store: Xenstore, text: string): void {
  const nodes = parse(text);
  const operations = store.operations(store.caller(DOMAIN_0));
  for (const [path, value, others] of nodes) {
    operations.write(path, toBytes(value));
    const permissions: Permission[] = [{ domid: DOMAIN_0, rights: others }];
    operations.setPermissions(path, permissions);
  }
  store.settle();
}

function parse(text: string): LastingText['nodes'] {
  const read = JSON.parse(text) as Partial<LastingText> | null;
  if (read?.version !== VERSION || !Array.isArray(read.nodes)) throw new Error('not a kept store');
  for (const node of read.nodes as readonly unknown[]) {
    const [path, value, others] = Array.isArray(node) ? node : [];
    const right = typeof others === 'number' && others >= Right.none && others <= Right.both;
    if (typeof path !== 'string' || !isPath(path) || typeof value !== 'string' || !right)
      throw new Error(`a damaged node: ${JSON.stringify(node).slice(0, 100)}`);
  }
  return read.nodes;
}
