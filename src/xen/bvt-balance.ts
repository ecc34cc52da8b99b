/**
 * Borrowed Virtual Time on several processors: which of the runnable entries should be on another one.
 *
 * Every processor has a queue of its own (bvt.ts), and virtual times mean the same on all of them. So a processor
 * that has more to do is one whose scheduler virtual time falls behind, and an entry is owed time elsewhere by as
 * much as it is behind the time there. Moving the one that is owed most, as soon as that is more than a threshold,
 * keeps all of them together: shares follow the weights on the whole machine, within the threshold.
 *
 * Where nobody waits, falling behind means nothing: an entry alone on a processor can have no more than all of it
 * (its weight asks for more than there is). The virtual time of such a processor is lifted towards that of the others,
 * up to the threshold. Without that, whoever came to it later would wait until the debt, of hours perhaps, was paid.
 *
 * This is a plan made from plain data, because queues live on different threads; who carries it out moves domains.
 */

/** An entry that is runnable. */
export interface EntryView {
  /** A, since the beginning. */
  readonly actual: number;
  readonly mcuAdvance: number;
  readonly running: boolean;
  /** Numbers of the processors that it may run on; null: all. */
  readonly pcpus: readonly number[] | null;
}

/** A processor's queue. */
export interface QueueView {
  /** Scheduler virtual time, since the beginning. */
  readonly virtualTime: number;
  readonly runnable: readonly EntryView[];
}

export interface Move {
  readonly from: number;
  /** Place in `runnable` of that queue. */
  readonly entry: number;
  readonly to: number;
}

export interface Balance {
  /** For each processor: what its scheduler virtual time (and A of an entry alone there) has to be at least. */
  readonly lifts: readonly number[];
  readonly moves: readonly Move[];
}

/**
 * @param threshold how much time an entry must be owed elsewhere to be moved, ns
 * @param mcu minimum charging unit, ns
 */
export function planBalance(queues: readonly QueueView[], threshold: number, mcu: number): Balance {
  const lifts = lift(queues, threshold / mcu);
  const times = queues.map(({ virtualTime }, pcpu) => Math.max(virtualTime, lifts[pcpu]!));
  const loads = queues.map(({ runnable }) => runnable.length);
  const moves: Move[] = [];
  const moved = new Set<EntryView>();
  /** The entry that is owed most on a processor, among those that wait on others (or, if `running`, run there). */
  const owedMost = (to: number, least: number, running = false): Move | null => {
    let most = least;
    let best: Move | null = null;
    queues.forEach(({ runnable }, from) => {
      // The last one stays: moving it would only move the gap.
      if (from === to || loads[from]! < 2) return;
      runnable.forEach((entry, place) => {
        if (entry.running !== running || moved.has(entry) || !allowed(entry, to)) return;
        const owed = ((times[to]! - entry.actual) / entry.mcuAdvance) * mcu;
        if (owed < most || (owed === most && best !== null)) return;
        most = owed;
        best = { from, entry: place, to };
      });
    });
    return best;
  };
  const go = (move: Move) => {
    moves.push(move);
    moved.add(queues[move.from]!.runnable[move.entry]!);
    loads[move.from]!--;
    loads[move.to]!++;
  };
  for (let pcpu = 0; pcpu < queues.length; pcpu++) {
    if (loads[pcpu] !== 0) continue;
    // If those that wait may not come here, the one that keeps them from running may.
    const none = Number.NEGATIVE_INFINITY;
    const move = owedMost(pcpu, none) ?? owedMost(pcpu, none, true);
    if (move !== null) go(move);
  }
  // One move for each processor at a time: the next plan sees what came of it.
  const order = queues.map((_, pcpu) => pcpu).sort((a, b) => times[b]! - times[a]!);
  for (const pcpu of order) {
    if (moves.some(({ from, to }) => from === pcpu || to === pcpu)) continue;
    const move = owedMost(pcpu, threshold);
    if (move !== null && !moves.some(({ from, to }) => from === move.from || to === move.from)) go(move);
  }
  return { lifts, moves };
}

/**
 * Where nobody waits, time follows the processors where somebody does; where nobody does anywhere, the first.
 * @param debt MCUs that an entry may still be owed from before it was alone
 */
function lift(queues: readonly QueueView[], debt: number): number[] {
  const waiting = queues.filter(({ runnable }) => runnable.length > 1);
  const times = (waiting.length > 0 ? waiting : queues).map(({ virtualTime }) => virtualTime);
  const to = waiting.length > 0 ? Math.min(...times) : Math.max(...times);
  return queues.map(({ virtualTime, runnable }) => {
    if (runnable.length > 1) return virtualTime;
    const [alone] = runnable;
    return Math.max(virtualTime, alone === undefined ? to : to - debt * alone.mcuAdvance);
  });
}

function allowed({ pcpus }: EntryView, pcpu: number): boolean {
  return pcpus === null || pcpus.includes(pcpu);
}
