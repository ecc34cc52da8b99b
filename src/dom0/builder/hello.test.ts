import { beforeAll, describe, expect, it } from 'vitest';
import { buildHello, HELLO_OUTPUT } from '../../../guests/hello/build.ts';
import { SHUTDOWN } from '../../xen/public/sched.ts';
import { testSystem } from '../../xen/testing.ts';
import { type BuilderControl, buildDomain } from './build.ts';
import { describeKernel } from './description.ts';
import { parseElf } from './elf.ts';
import { readKernel } from './image.ts';

let file: Uint8Array;

beforeAll(async () => {
  file = await buildHello();
});

/** The control interface as the builder wants it, on the same thread. */
function asynchronous(control: object): BuilderControl {
  return new Proxy(control, {
    get: (target, method) => {
      const call = Reflect.get(target, method);
      return async (...args: unknown[]) => Reflect.apply(call, target, args);
    },
  }) as BuilderControl;
}

async function boot(
  cmdline: string,
): Promise<{ printed: string; shutdown: number | null; reason: string | null }> {
  const system = testSystem(48);
  const { control } = system.hypervisor;
  const domid = control.createDomain({ maxPages: 2048, vcpus: 1 });
  await buildDomain(system.memory, asynchronous(control), domid, {
    kernel: readKernel(file),
    ramdisk: null,
    cmdline,
    pages: 2048,
  });
  control.unpauseDomain(domid);
  const info = () => control.getDomainInfo(domid);
  for (let slice = 0; slice < 2000 && info().shutdown === null; slice++) {
    const wait = system.hypervisor.runSlice();
    if (Number.isFinite(wait)) system.clock.now += wait;
  }
  return { printed: control.readConsole(domid), shutdown: info().shutdown, reason: info().crashReason };
}

describe('the hello guest', () => {
  it('describes itself the old way', () => {
    const description = describeKernel(parseElf(file));
    expect(description).toMatchObject({
      source: '__xen_guest',
      guestOs: 'hello',
      guestVersion: '1',
      virtBase: -(2 ** 31),
      paddrOffset: -(2 ** 31),
      entry: -(2 ** 31) + 0x100000,
      hypercallPage: -(2 ** 31) + 0x101000,
      bsdSymtab: true,
      supportedFeatures: ['writable_page_tables'],
    });
    expect(readKernel(file).start).toBe(0x100000);
  });

  it('gets what it tries, and powers off', async () => {
    const { printed, shutdown, reason } = await boot('');
    expect(printed.trimEnd().split('\n')).toEqual([...HELLO_OUTPUT]);
    expect({ shutdown, reason }).toEqual({ shutdown: SHUTDOWN.poweroff, reason: null });
  });

  it('ends as its command line says', async () => {
    expect((await boot('1')).shutdown).toBe(SHUTDOWN.reboot);
  });
});
