import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { XenstoreClient } from './client.ts';
import { lastingText, restoreLasting } from './lasting.ts';
import { Right } from './permissions.ts';
import { Xenstore } from './xenstore.ts';

function setUp(text?: string) {
  const store = new Xenstore();
  if (text !== undefined) restoreLasting(store, text);
  return { store, dom0: new XenstoreClient(store) };
}

describe('what lasts of a store', () => {
  it('is what is of no domain and no device', () => {
    const { store, dom0 } = setUp();
    store.introduce(3);
    for (const path of [
      ...['/local/domain/3/name', '/vm/abc/name', '/local/domain/0/backend/vbd/3/51712/state'],
      ...['/local/domain/0/error/x', '/tool/xenstored/x'],
    ])
      dom0.write(path, 'passing');
    dom0.write('/local/domain/0/mine', 'a\0\xffb');
    dom0.write('/tool/own', 'kept', [
      { domid: 0, rights: Right.read },
      { domid: 3, rights: Right.both },
    ]);
    dom0.write('/tool/own/below', '');
    dom0.write('/given', '', [{ domid: 3, rights: Right.none }]);
    dom0.write('/given/away', 'x');
    const { dom0: later, store: again } = setUp(lastingText(store));
    expect(later.read('/local/domain/0/mine')).toBe('a\0\xffb');
    expect(later.read('/tool/own')).toBe('kept');
    expect(later.permissions('/tool/own')).toEqual([{ domid: 0, rights: Right.read }]);
    expect(later.list('/tool/own')).toEqual(['below']);
    expect(later.list('/local/domain')).toEqual(['0']);
    expect(later.list('/local/domain/0')).toEqual(['mine']);
    for (const gone of ['/vm', '/given', '/tool/xenstored/x']) expect(later.read(gone), gone).toBeNull();
    expect(lastingText(again)).toBe(lastingText(store));
  });

  it('is the same after any number of restarts', () => {
    const name = fc.constantFrom('a', 'b', 'tool', 'local', 'domain', '0', '1', 'vm', 'backend');
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.array(name, { minLength: 1, maxLength: 5 }), fc.string())),
        (writes) => {
          const { store, dom0 } = setUp();
          for (const [names, value] of writes)
            dom0.write(`/${names.join('/')}`, Buffer.from(value).toString('latin1'));
          const text = lastingText(store);
          expect(lastingText(setUp(text).store)).toBe(text);
        },
      ),
    );
  });

  it.each([
    '',
    'null',
    '{}',
    '{"version":2,"nodes":[]}',
    '{"version":1,"nodes":[["/a","x"]]}',
    '{"version":1,"nodes":[["/good","",0],["bad","",0]]}',
    '{"version":1,"nodes":[["/a","x",4]]}',
  ])('is not read from %s', (text) => {
    const { store, dom0 } = setUp();
    expect(() => restoreLasting(store, text)).toThrow();
    expect(dom0.read('/good')).toBeNull();
  });
});
