import { describe, expect, it } from 'vitest';
import { XenstoreClient } from '../dom0/xenstore/client.ts';
import { Xenstore } from '../dom0/xenstore/xenstore.ts';
import { removeDomainNodes, writeDomainNodes } from './domain-nodes.ts';

const uuid = '71cd8584-e6c3-41f1-a3b1-f5d17af398c1';
const facts = {
  domid: 3,
  uuid,
  name: 'guest',
  memory: 131072,
  maxMemory: 262144,
  vcpus: 2,
  onlineVcpus: 1,
  cmdline: 'console=hvc0',
};
const rings = {
  console: { mfn: 77, address: 0x5000, port: 2 },
  xenstore: { mfn: 78, address: 0x6000, port: 1 },
};

function make() {
  const store = new Xenstore();
  const dom0 = new XenstoreClient(store);
  writeDomainNodes(dom0, facts, rings);
  return { dom0, guest: new XenstoreClient(store, 3), other: new XenstoreClient(store, 4) };
}

describe("a domain's nodes", () => {
  it('are where guests look for them, relative to their home', () => {
    const { guest } = make();
    expect(guest.read('domid')).toBe('3');
    expect(guest.read('name')).toBe('guest');
    expect(guest.read('memory/target')).toBe('131072');
    expect(guest.read('memory/static-max')).toBe('262144');
    expect([0, 1].map((id) => guest.read(`cpu/${id}/availability`))).toEqual(['online', 'offline']);
    expect(guest.read('console/ring-ref')).toBe('77');
    expect(guest.read('store/port')).toBe('1');
    expect(guest.list('cpu')).toEqual(['0', '1']);
    expect(guest.read(`${guest.read('vm')}/uuid`)).toBe(uuid);
  });

  it('are written by the guest where they are its own, and only there', () => {
    const { guest, dom0, other } = make();
    guest.write('control/feature-poweroff', '1');
    guest.write('data/mine', 'x');
    expect(dom0.read('/local/domain/3/data/mine')).toBe('x');
    for (const path of ['memory/target', 'domid', 'name', 'device/vbd/1', 'new']) {
      expect(() => guest.write(path, '1')).toThrow();
    }
    expect(() => other.read('/local/domain/3/name')).toThrow();
    expect(() => other.write('/local/domain/3/data/theirs', 'x')).toThrow();
  });

  it('go with the domain', () => {
    const { dom0 } = make();
    removeDomainNodes(dom0, 3, uuid);
    expect(dom0.read('/local/domain/3/domid')).toBeNull();
    expect(dom0.list('/vm')).toEqual([]);
  });
});
