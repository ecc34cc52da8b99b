import { beforeEach, describe, expect, it } from 'vitest';
import { XenbusState } from '../../xen/public/io/xenbus.ts';
import { XenstoreClient } from '../xenstore/client.ts';
import { Right } from '../xenstore/permissions.ts';
import { Xenstore } from '../xenstore/xenstore.ts';
import { DeviceError, type FrontEnd, XenbusDevice, type XenbusDriver } from './xenbus-device.ts';

const FRONT = '/local/domain/7/device/vbd/51712';
const BACK = '/local/domain/0/backend/vbd/7/51712';

let store: Xenstore;
let dom0: XenstoreClient;
let guest: XenstoreClient;
let calls: string[];
let device: XenbusDevice;
/** What connect does. */
let onConnect: (front: FrontEnd) => Promise<Record<string, string | number>>;

const settle = async () => {
  for (let turn = 0; turn < 20; turn++) await Promise.resolve();
};
const state = () => Number(dom0.read(`${BACK}/state`));
const front = async (value: number) => {
  guest.write(`${FRONT}/state`, `${value}`);
  await settle();
};

beforeEach(() => {
  store = new Xenstore();
  store.introduce(7);
  dom0 = new XenstoreClient(store);
  guest = new XenstoreClient(store, 7);
  calls = [];
  onConnect = (from) => Promise.resolve({ sectors: from.number('ring-ref', 100) });
  const driver: XenbusDriver = {
    connect: (from) => {
      calls.push('connect');
      return onConnect(from);
    },
    disconnect: () => {
      calls.push('disconnect');
      return Promise.resolve();
    },
  };
  const description = { kind: 'vbd', domid: 7, devid: 51712, frontend: { 'virtual-device': 51712 } };
  device = new XenbusDevice(dom0, { ...description, backend: { 'feature-flush-cache': 1 } }, driver);
});

describe('a device', () => {
  it('is there for both ends, each with its rights', () => {
    expect(guest.read(`${FRONT}/backend`)).toBe(BACK);
    expect(guest.read(`${BACK}/frontend`)).toBe(FRONT);
    expect(guest.read(`${BACK}/feature-flush-cache`)).toBe('1');
    expect(guest.read(`${BACK}/state`)).toBe('2');
    expect(dom0.permissions(FRONT)![0]).toEqual({ domid: 7, rights: Right.none });
    expect(() => guest.write(`${BACK}/state`, '4')).toThrow(/EACCES/);
  });

  it('connects when the front end is ready, once', async () => {
    guest.write(`${FRONT}/ring-ref`, '8');
    await front(XenbusState.Initialised);
    expect(state()).toBe(XenbusState.Connected);
    expect(guest.read(`${BACK}/sectors`)).toBe('8');
    await front(XenbusState.Connected);
    expect(calls).toEqual(['disconnect', 'connect']);
  });

  it('goes through closing, and can be used again', async () => {
    guest.write(`${FRONT}/ring-ref`, '8');
    await front(XenbusState.Initialised);
    calls = [];
    await front(XenbusState.Closing);
    expect([state(), calls]).toEqual([XenbusState.Closing, []]);
    await front(XenbusState.Closed);
    expect([state(), calls]).toEqual([XenbusState.Closed, ['disconnect']]);
    await front(XenbusState.Initialising);
    expect(state()).toBe(XenbusState.InitWait);
    await front(XenbusState.Initialised);
    expect(state()).toBe(XenbusState.Connected);
  });

  it.each([null, '', '-1', '1e9', '101', '0x10', '99999999999999999999', 'eight'])(
    'refuses ring-ref %j',
    async (value) => {
      if (value !== null) guest.write(`${FRONT}/ring-ref`, value);
      await front(XenbusState.Initialised);
      expect(state()).toBe(XenbusState.Closing);
      expect(dom0.read('/local/domain/0/error/backend/vbd/7/51712/error')).toMatch(/ring-ref/);
      // It does not try again and again.
      calls = [];
      await front(XenbusState.Initialised);
      expect(calls).toEqual([]);
      await front(XenbusState.Closed);
      guest.write(`${FRONT}/ring-ref`, '3');
      await front(XenbusState.Initialising);
      await front(XenbusState.Initialised);
      expect(state()).toBe(XenbusState.Connected);
    },
  );

  it('does one thing at a time while the front end changes its mind', async () => {
    let running = 0;
    const release: (() => void)[] = [];
    onConnect = async () => {
      running++;
      expect(running).toBe(1);
      await new Promise<void>((resolve) => release.push(resolve));
      running--;
      return {};
    };
    await front(XenbusState.Initialised);
    await front(XenbusState.Closed);
    await front(XenbusState.Initialising);
    await front(XenbusState.Initialised);
    expect(release).toHaveLength(1);
    release[0]!();
    await settle();
    expect(state()).toBe(XenbusState.Connected);
    await front(XenbusState.Closed);
    expect(state()).toBe(XenbusState.Closed);
  });

  it('closes when the guest removes its nodes', async () => {
    guest.write(`${FRONT}/ring-ref`, '8');
    await front(XenbusState.Initialised);
    guest.remove(FRONT);
    await settle();
    expect(state()).toBe(XenbusState.Closed);
    expect(calls.at(-1)).toBe('disconnect');
  });

  it('is left alone by states that are none', async () => {
    for (const value of ['17', 'x', '', '3.5']) {
      guest.write(`${FRONT}/state`, value);
      await settle();
    }
    expect(state()).toBe(XenbusState.InitWait);
  });

  it('detaches when the guest lets go, and stays when it does not', async () => {
    guest.write(`${FRONT}/ring-ref`, '8');
    await front(XenbusState.Initialised);
    const never = await device.detach(200, settle);
    expect(never).toBe(false);
    expect(dom0.read(`${BACK}/online`)).toBe('1');
    const detached = device.detach(10_000, settle);
    expect([guest.read(`${BACK}/online`), state()]).toEqual(['0', XenbusState.Closing]);
    await front(XenbusState.Closing);
    await front(XenbusState.Closed);
    expect(await detached).toBe(true);
    expect([dom0.read(BACK), dom0.read(FRONT)]).toEqual([null, null]);
  });

  it('is taken away at once if need be', async () => {
    guest.write(`${FRONT}/ring-ref`, '8');
    await front(XenbusState.Initialised);
    await device.remove();
    await device.remove();
    expect(calls.filter((call) => call === 'connect')).toHaveLength(1);
    expect([dom0.read(BACK), dom0.read(FRONT)]).toEqual([null, null]);
  });

  it('closes with what the driver found wrong later', async () => {
    guest.write(`${FRONT}/ring-ref`, '8');
    await front(XenbusState.Connected);
    device.fail('wild index');
    await settle();
    expect([state(), calls.at(-1)]).toEqual([XenbusState.Closing, 'disconnect']);
    expect(dom0.read('/local/domain/0/error/backend/vbd/7/51712/error')).toBe('wild index');
    expect(new DeviceError('x')).toBeInstanceOf(Error);
  });
});
