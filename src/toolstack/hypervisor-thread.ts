/**
 * What a processor's thread does: brings the hypervisor up on it and runs it, until it is told to stop.
 */
import { P9Plane } from '../dom0/9pfs/plane.ts';
import type { DataPlaneFactory } from '../dom0/backend/data-plane.ts';
import { DataPlanes } from '../dom0/backend/data-planes.ts';
import { PLANE_SIGNAL } from '../dom0/backend/plane-client.ts';
import type { DirectFiles } from '../dom0/block/direct.ts';
import { VbdPlane } from '../dom0/block/vbd-plane.ts';
import { networkPlanes } from '../dom0/net/networks.ts';
import { Frames } from '../machine/frames.ts';
import { MailboxReceiver } from '../machine/mailbox.ts';
import { type Memory, PAGE_SIZE } from '../machine/memory.ts';
import { dispatch, type PcpuMessage, runPcpu } from '../machine/pcpu.ts';
import {
  ActivityBoard,
  createProcessor,
  PHASE,
  type ProcessorOptions,
  type TranslationCounts,
  type VerifyLog,
} from '../x86/index.ts';
import { CPU } from '../x86/state.ts';
import { Common } from '../xen/common.ts';
import { DomainTraffic } from '../xen/domain-traffic.ts';
import { type DomainDump, describeForDump } from '../xen/dump.ts';
import { HypercallError } from '../xen/hypercall.ts';
import { Hypervisor, type HypervisorHost } from '../xen/hypervisor.ts';
import { ERRNO } from '../xen/public/errno.ts';

/** What the machine itself tells, beside the hypervisor's control interface. */
export class Instruments {
  private readonly hypervisor: Hypervisor;
  private readonly board: number;
  private readonly verify: VerifyLog | null;
  private readonly counts: TranslationCounts | null;

  /** @param board linear address of the processor's activity board @param processor what the processor was made with */
  constructor(hypervisor: Hypervisor, board: number, { verify, counts }: ProcessorOptions) {
    this.hypervisor = hypervisor;
    this.board = board;
    this.verify = verify ?? null;
    this.counts = counts ?? null;
  }

  /** How many translations there are, and where they came from; null: nobody counts. */
  translations(): { made: number; stored: number; usedBatches: number } | null {
    return this.counts && { ...this.counts };
  }

  /** What came of checking translated code against the interpreter; null: it is not checked. */
  verification(): Omit<VerifyLog, 'onDifference' | 'sample'> | null {
    if (this.verify === null) return null;
    const { onDifference: _, sample: __, ...counts } = this.verify;
    return counts;
  }

  /** Linear address of the words that say what the processor is doing (see {@link ActivityBoard}). */
  activityBoard(): number {
    return this.board;
  }

  /** Guest instructions that a domain's virtual CPUs executed so far. */
  instructions(domid: number): number {
    const vcpus = this.hypervisor.domain(domid)?.vcpus ?? [];
    return vcpus.reduce((sum, { cpu }) => sum + cpu.number(CPU.instructions), 0);
  }

  /** The domain's state and where its pages are. Pause it first. @throws HypercallError ESRCH */
  describeForDump(domid: number): DomainDump {
    const domain = this.hypervisor.domain(domid);
    if (domain === undefined) throw new HypercallError(ERRNO.ESRCH, `there is no domain ${domid}`);
    return describeForDump(domain);
  }
}

/** Domains wait for this processor. */
export interface Crowded {
  readonly kind: 'crowded';
}

/** How often that is told, ns. */
const CROWDED_INTERVAL = 100_000_000;

/** Requests that are for the back ends. */
const PLANE_METHODS: ReadonlySet<string> = new Set(['openPlane', 'planeMessage', 'closePlane']);

/** The back ends that there are. */
function dataPlaneFactories(
  memory: Memory,
  frames: Frames,
  files: DirectFiles | null,
): ReadonlyMap<string, DataPlaneFactory> {
  return new Map<string, DataPlaneFactory>([
    ['vbd', (link, parameters) => new VbdPlane(link, parameters, files)],
    ['9pfs', (link, parameters) => new P9Plane(link, parameters)],
    ...networkPlanes(memory, frames),
  ]);
}

/** Where a processor finds what is its own, and what it has in common with others. */
export interface PcpuSeat {
  readonly number: number;
  /** Linear addresses: of its mailbox, and of what the machine's hypervisors have in common (xen/common.ts). */
  readonly mailbox: number;
  readonly common: number;
  /** It is the machine's only one. */
  readonly alone: boolean;
}

/** @param post reaches Domain 0's thread, from a busy thread too @param files if this thread can use files of its host */
export function runHypervisor(
  memory: Memory,
  { number, mailbox, common, alone }: PcpuSeat,
  host: HypervisorHost,
  post: (message: PcpuMessage) => void,
  processor: ProcessorOptions,
  files: DirectFiles | null = null,
): void {
  const receiver = new MailboxReceiver(memory, mailbox, () => post({ kind: 'room' }));
  const frames = new Frames(memory);
  const boardAddress = frames.alloc() * PAGE_SIZE;
  const board = new ActivityBoard(memory, boardAddress);
  const hypervisor = new Hypervisor(
    memory,
    frames,
    (...parts) => createProcessor(...parts, { ...processor, activity: board }),
    host,
    { number, common: new Common(frames, common) },
  );
  const { control } = hypervisor;
  const traffic = new DomainTraffic(hypervisor);
  const instruments = new Instruments(hypervisor, boardAddress, processor);
  const planes = new DataPlanes(hypervisor, dataPlaneFactories(memory, frames, files), (value) =>
    post({ kind: 'notify', value }),
  );
  control.onNotify = (value) => post({ kind: 'notify', value });
  if (processor.verify)
    processor.verify.onDifference = (report) => {
      for (const line of report.split('\n')) hypervisor.notify({ kind: 'trace', line });
    };
  /** Once in a while Domain 0 hears that domains wait here: others may have time for them. */
  let crowdedUntil = 0;
  const crowded = () => {
    const now = host.now();
    if (now < crowdedUntil) return;
    crowdedUntil = now + CROWDED_INTERVAL;
    post({ kind: 'notify', value: { kind: 'crowded' } satisfies Crowded });
  };
  runPcpu(
    receiver,
    {
      runSlice: () => {
        board.enter(PHASE.machine);
        const idle = hypervisor.runSlice();
        board.enter(PHASE.machine);
        if (hypervisor.scheduler.load > 1 && !alone) crowded();
        if (planes.work()) return 0;
        if (idle > 0) board.enter(PHASE.idle);
        return idle;
      },
      call: (method, args) => {
        board.enter(PHASE.machine);
        if (PLANE_METHODS.has(method)) return dispatch(planes, method, args);
        if (method === 'destroyDomain') planes.domainGone(args[0]);
        const target = method in instruments ? instruments : method in traffic ? traffic : control;
        return dispatch(target, method, args);
      },
      signal: (a, b) => (a < PLANE_SIGNAL ? control.evtchnSend(a, b) : planes.signal(a - PLANE_SIGNAL, b)),
    },
    post,
    () => host.now() / 1e6,
  );
}
