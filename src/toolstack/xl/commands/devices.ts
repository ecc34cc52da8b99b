/** xl block-list, block-attach, block-detach, network-list, network-attach, network-detach. */
import type { DomainInfo } from '../../api/model.ts';
import { diskText, withAbsoluteFiles } from '../../config/device-text.ts';
import { parseDiskSpec } from '../../devices/disk-spec.ts';
import { parseVifSpec } from '../../net/vif-spec.ts';
import { type Arguments, needDomain, type Run, type XlContext, XlError } from '../context.ts';

async function domainsOf(context: XlContext, { operands }: Arguments): Promise<DomainInfo[]> {
  const found: DomainInfo[] = [];
  for (const qualifier of operands) found.push(await needDomain(context, qualifier));
  return found;
}

export const blockList: Run = async (context, args) => {
  const toolstack = await context.toolstack();
  const domains = await domainsOf(context, args);
  const row = (cells: readonly (string | number)[]) =>
    `${[5, 3, 6, 5, 6, 8, 30].map((width, index) => String(cells[index]).padEnd(width)).join(' ')}\n`;
  context.out(row(['Vdev', 'BE', 'handle', 'state', 'evt-ch', 'ring-ref', 'BE-path']));
  for (const { domid } of domains) {
    for (const disk of await toolstack.disks(domid)) {
      const { devid, state, eventChannel, ringRef, backend } = disk;
      context.out(row([devid, 0, domid, state, eventChannel, ringRef, backend]));
    }
  }
};

export const blockAttach: Run = async (context, { operands }) => {
  const [qualifier, ...parts] = operands as [string, ...string[]];
  const { domid } = await needDomain(context, qualifier);
  const spec = withAbsoluteFiles(parsed(parts, parseDiskSpec), context.cwd);
  for (const warning of spec.warnings) context.err(`WARNING: ${warning}\n`);
  await (await context.toolstack()).attachDisk(domid, diskText(spec));
};

export const blockDetach: Run = async (context, args) => {
  const [qualifier, vdev] = args.operands as [string, string];
  const { domid } = await needDomain(context, qualifier);
  await (await context.toolstack()).detachDisk(domid, vdev, args.has('f'));
};

export const networkList: Run = async (context, args) => {
  const toolstack = await context.toolstack();
  const domains = await domainsOf(context, args);
  context.out(
    'Idx BE Mac Addr.         handle state evt-ch   tx-/rx-ring-ref BE-path                       \n',
  );
  for (const { domid } of domains) {
    for (const vif of await toolstack.vifs(domid)) {
      const { devid, mac, state, eventChannel, txRingRef, rxRingRef, backend } = vif;
      const left = (value: string | number, width: number) => String(value).padEnd(width);
      const right = (value: string | number, width: number) => String(value).padStart(width);
      context.out(
        `${left(devid, 3)} ${left(0, 2)} ${left(mac, 17)} ${right(devid, 6)} ${right(state, 5)} ` +
          `${right(eventChannel, 6)} ${right(txRingRef, 5)}/${left(rxRingRef, 11)} ${left(backend, 30)}\n`,
      );
    }
  }
};

export const networkAttach: Run = async (context, { operands }) => {
  const [qualifier, ...parts] = operands as [string, ...string[]];
  const { domid } = await needDomain(context, qualifier);
  for (const warning of parsed(parts, parseVifSpec).warnings) context.err(`WARNING: ${warning}\n`);
  await (await context.toolstack()).attachVif(domid, parts.join(','));
};

export const networkDetach: Run = async (context, args) => {
  const [qualifier, which] = args.operands as [string, string];
  const { domid } = await needDomain(context, qualifier);
  const toolstack = await context.toolstack();
  const found = (await toolstack.vifs(domid)).find(
    ({ devid, mac }) => String(devid) === which || mac === which.toLowerCase(),
  );
  if (!found) throw new XlError(`Unknown device ${which}.`);
  await toolstack.detachVif(domid, found.devid, args.has('f'));
};

/** The words of a specification are its parts. @throws XlError */
function parsed<T>(parts: readonly string[], parse: (text: string) => T): T {
  try {
    return parse(parts.join(','));
  } catch (error) {
    throw new XlError((error as Error).message);
  }
}
