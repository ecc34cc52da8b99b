/**
 * CPU time of the machine's processor: what a thread of this process has used, from /proc.
 *
 * On a host that others use too, work per second says what they left over; work per second of the processor's own
 * time says what became of it.
 */
import { readdirSync, readFileSync } from 'node:fs';

const TASKS = '/proc/self/task';

/** ns that a thread has run so far. */
function runTime(thread: string): number {
  return Number(readFileSync(`${TASKS}/${thread}/schedstat`, 'latin1').split(' ')[0]);
}

/** The thread that runs most while something else is waited for; all of them at once are looked at. */
export async function busiestThread(wait: () => Promise<void>): Promise<() => number> {
  const before = new Map(readdirSync(TASKS).map((thread) => [thread, runTime(thread)]));
  await wait();
  const used = readdirSync(TASKS).map(
    (thread) => [thread, runTime(thread) - (before.get(thread) ?? 0)] as const,
  );
  const [thread] = used.reduce((most, each) => (each[1] > most[1] ? each : most));
  return () => runTime(thread);
}
