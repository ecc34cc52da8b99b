/**
 * Random requests of several clients, inside and outside of transactions, against a model that is a plain map.
 *
 * What must hold: a request outside a transaction answers as the model does at that moment; a committed transaction
 * answers as if all of it had happened at its commit; one that is refused or given up has changed nothing; a watch
 * hears of every change, and of nothing else.
 */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { XS } from '../../xen/public/xs_wire.ts';
import { childOf, parentOf } from './path.ts';
import { TestClient } from './testing.ts';
import { Xenstore } from './xenstore.ts';

const RUNS = Number(process.env['PROPERTY_RUNS'] ?? 200);
const OK = 'OK\0';

/** The store as it ought to be: values by path, children in the order in which they came. */
class Model {
  readonly values = new Map<string, string>([['/', '']]);
  readonly children = new Map<string, string[]>([['/', []]]);

  /** Carries a request out. @returns the answer, and what changed */
  ask({ type, path, value }: Ask): { answer: string; changed: string[] } {
    const exists = this.values.has(path);
    switch (type) {
      case 'read':
        return { answer: exists ? this.values.get(path)! : '!ENOENT', changed: [] };
      case 'list':
        return {
          answer: exists
            ? this.children
                .get(path)!
                .map((name) => `${name}\0`)
                .join('')
            : '!ENOENT',
          changed: [],
        };
      case 'write':
        this.make(path);
        this.values.set(path, value);
        return { answer: OK, changed: [path] };
      case 'mkdir':
        this.make(path);
        return { answer: OK, changed: exists ? [] : [path] };
      case 'remove': {
        if (!exists) return { answer: this.values.has(parentOf(path)) ? OK : '!ENOENT', changed: [] };
        const changed = [...this.values.keys()].filter((at) => at === path || at.startsWith(`${path}/`));
        for (const at of changed) {
          this.values.delete(at);
          this.children.delete(at);
        }
        const siblings = this.children.get(parentOf(path))!;
        siblings.splice(siblings.indexOf(path.slice(path.lastIndexOf('/') + 1)), 1);
        return { answer: OK, changed };
      }
    }
  }

  private make(path: string): void {
    if (this.values.has(path)) return;
    this.make(parentOf(path));
    this.values.set(path, '');
    this.children.set(path, []);
    this.children.get(parentOf(path))!.push(path.slice(path.lastIndexOf('/') + 1));
  }
}

interface Ask {
  type: 'read' | 'list' | 'write' | 'mkdir' | 'remove';
  path: string;
  value: string;
}

const TYPES = { read: XS.READ, list: XS.DIRECTORY, write: XS.WRITE, mkdir: XS.MKDIR, remove: XS.RM };
const send = (client: TestClient, { type, path, value }: Ask, transaction = 0) =>
  client.ask(TYPES[type], type === 'write' ? `${path}\0${value}` : `${path}\0`, transaction);

const pathArb = fc
  .array(fc.constantFrom('a', 'b', 'c'), { minLength: 1, maxLength: 3 })
  .map((parts) => `/${parts.join('/')}`);
const askArb: fc.Arbitrary<Ask> = fc.record({
  type: fc.constantFrom('read', 'list', 'write', 'write', 'mkdir', 'remove'),
  path: pathArb,
  value: fc.constantFrom('', 'x', 'yy'),
});
const slot = fc.integer({ min: 0, max: 2 });
const stepArb = fc.oneof(
  { weight: 5, arbitrary: fc.record({ do: fc.constant('ask' as const), ask: askArb }) },
  { weight: 8, arbitrary: fc.record({ do: fc.constant('inside' as const), slot, ask: askArb }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('end' as const), slot, commit: fc.boolean() }) },
);

/** Watches that a change is told to: on the path and above it, and for removed nodes on the very path. */
function heard(watched: readonly string[], changed: readonly string[], top: string): Set<string> {
  const events = new Set<string>();
  for (const path of changed) {
    for (const at of watched) {
      const below = at === '/' || path === at || path.startsWith(`${at}/`);
      if (path === at || (path === top && below)) events.add(`${path} ${at}`);
    }
  }
  return events;
}

it('does what a plain map does, and transactions happen at their commit', () => {
  fc.assert(
    fc.property(
      fc.array(stepArb, { maxLength: 80, size: 'max' }),
      fc.uniqueArray(fc.oneof(pathArb, fc.constant('/')), { maxLength: 3 }),
      (steps, watched) => {
        const store = new Xenstore();
        const client = new TestClient(store);
        client.ask(XS.RM, '/tool\0');
        const watcher = new TestClient(store);
        for (const path of watched) watcher.ask(XS.WATCH, `${path}\0${path}\0`);
        watcher.takeEvents();
        const model = new Model();
        const running: ({ id: number; asked: { ask: Ask; answer: string }[] } | undefined)[] = [];
        let refused = 0;

        for (const step of steps) {
          if (step.do === 'ask') {
            const { answer, changed } = model.ask(step.ask);
            expect(send(client, step.ask)).toBe(answer);
            expect(new Set(watcher.takeEvents())).toEqual(heard(watched, changed, step.ask.path));
          } else if (step.do === 'inside') {
            running[step.slot] ??= { id: client.begin(), asked: [] };
            const { id, asked } = running[step.slot]!;
            asked.push({ ask: step.ask, answer: send(client, step.ask, id) });
            expect(watcher.takeEvents()).toEqual([]);
          } else {
            const transaction = running[step.slot];
            running[step.slot] = undefined;
            if (!transaction) continue;
            const result = client.end(transaction.id, step.commit);
            const events = new Set(watcher.takeEvents());
            if (!step.commit) expect(result).toBe(OK);
            if (!step.commit || result === '!EAGAIN') {
              if (step.commit) refused++;
              expect(events).toEqual(new Set());
              continue;
            }
            expect(result).toBe(OK);
            const told = new Set<string>();
            for (const { ask, answer } of transaction.asked) {
              const here = model.ask(ask);
              expect(answer).toBe(here.answer);
              for (const event of heard(watched, here.changed, ask.path)) told.add(event);
            }
            expect(events).toEqual(told);
          }
          expect(
            new Map([...store.tree.walk()].map(([path, node]) => [path, String.fromCharCode(...node.value)])),
          ).toEqual(model.values);
        }
        // A lone transaction is never refused.
        if (steps.every((step) => step.do !== 'ask' && step.slot === 0)) expect(refused).toBe(0);
        // The books of the tree agree with the tree.
        expect(store.tree.owned(0)).toBe(store.tree.size);
        for (const [path, node] of store.tree.walk()) {
          let bytes = 0;
          for (const name of node.children) {
            expect(store.tree.get(childOf(path, name))).toBeDefined();
            bytes += name.length + 1;
          }
          expect(node.childBytes).toBe(bytes);
        }
      },
    ),
    { numRuns: RUNS },
  );
});

it('answers any bytes whatever, and stays whole', () => {
  const message = fc.record({
    type: fc.oneof(fc.integer({ min: 0, max: 24 }), fc.nat({ max: 0xffff })),
    transaction: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 4 })),
    payload: fc.oneof(
      fc.string({ maxLength: 20 }).map((text) => text.replace(/[^ -~]/g, '')),
      fc
        .array(
          fc.constantFrom(
            '/a',
            'data',
            '/local/domain/1/data/x',
            'T',
            '0',
            'r1',
            'n1',
            '@releaseDomain',
            '1',
            '',
          ),
          {
            maxLength: 3,
          },
        )
        .map((parts) => parts.map((part) => `${part}\0`).join('')),
    ),
  });
  fc.assert(
    fc.property(fc.array(message, { maxLength: 60 }), fc.constantFrom(0, 1), (messages, domid) => {
      const store = new Xenstore({ nodes: 20 });
      const dom0 = new TestClient(store);
      dom0.write('/local/domain/1/data', '');
      dom0.ask(XS.SET_PERMS, '/local/domain/1/data\0b1\0');
      store.introduce(1);
      const client = new TestClient(store, domid);
      for (const { type, transaction, payload } of messages) {
        client.ask(type, payload, transaction);
        client.takeEvents();
      }
      expect(store.tree.owned(1)).toBeLessThanOrEqual(20);
      if (domid === 1) expect(store.tree.get('/tool/xenstored')).toBeDefined();
      expect(dom0.ask(XS.CONTROL, 'check\0')).toBe(OK);
    }),
    { numRuns: RUNS },
  );
});
