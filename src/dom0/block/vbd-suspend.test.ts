import { describe, expect, it } from 'vitest';
import { BLKIF_OP, BLKIF_RSP } from '../../xen/public/io/blkif.ts';
import { XenbusState } from '../../xen/public/io/xenbus.ts';
import { grantInUse } from '../backend/testing.ts';
import { RING_REF, setUp } from './testing.ts';

const okay = (id: number) => ({ id: BigInt(id), operation: BLKIF_OP.READ, status: BLKIF_RSP.OKAY });

describe('a device that is suspended', () => {
  it('answers what it has taken, takes nothing more, and lets go of the guest', async () => {
    const { front, source, guest, device } = setUp();
    await front.connect();
    source.held = [];
    front.page(8);
    for (let id = 0; id < 3; id++) front.request(id, BLKIF_OP.READ, id, [[8, id, id]]);
    await front.kick();
    /** Both threads have their turns until it is done. */
    const settled = async (work: Promise<void>) => {
      let done = false;
      void work.then(() => {
        done = true;
      });
      for (let turn = 0; turn < 50 && !done; turn++) await front.backends.settle();
      expect(done).toBe(true);
    };
    let suspended = false;
    const suspending = device.device.suspend().then(() => {
      suspended = true;
    });
    await front.backends.settle();
    front.request(3, BLKIF_OP.READ, 3, [[8, 3, 3]]);
    await front.kick();
    expect(source.held).toHaveLength(3);
    source.held[2]!();
    source.held[0]!();
    await front.backends.settle();
    expect(suspended).toBe(false);
    source.held[1]!();
    await settled(suspending);
    expect(front.answers()).toEqual([okay(2), okay(0), okay(1)]);
    expect([RING_REF, 8].map((ref) => grantInUse(guest, ref))).toEqual([false, false]);
    // The guest noticed nothing, and its signals do no harm.
    expect(device.device.state).toBe(XenbusState.Connected);
    await front.kick();
    expect(front.answers()).toEqual([]);

    source.held = null;
    await settled(device.device.resume());
    await front.backends.settle();
    expect(front.answers()).toEqual([okay(3)]);
    expect(grantInUse(guest, RING_REF)).toBe(true);
    front.request(4, BLKIF_OP.READ, 4, [[8, 4, 4]]);
    await front.kick();
    expect(front.answers()).toEqual([okay(4)]);
  });

  it('tells what its front end said, without what only this one means', async () => {
    const { front, device } = setUp();
    expect(device.device.frontEndNodes()).toBeNull();
    await front.connect();
    const nodes = Object.fromEntries(device.device.frontEndNodes()!);
    expect(Number(nodes['event-channel'])).toBe(front.port);
    expect(Number(nodes['ring-ref'])).toBe(RING_REF);
    for (const name of ['state', 'backend', 'backend-id']) expect(nodes).not.toHaveProperty(name);
  });
});
