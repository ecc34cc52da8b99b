/**
 * Where the virtual CPUs of a domain may run. They are all on one processor at a time, so it has to be one that each
 * of them may be on.
 */
import { parseCpus } from './api/toolstack.ts';

/** For each virtual CPU the numbers of processors, ascending; null: any. */
export type Affinity = readonly (readonly number[] | null)[];

/** The processors that a domain may be on; null: any. None: no processor suits all of its virtual CPUs. */
export function together(affinity: Affinity): readonly number[] | null {
  let common: readonly number[] | null = null;
  for (const each of affinity)
    if (each !== null) common = common === null ? each : common.filter((pcpu) => each.includes(pcpu));
  return common;
}

/**
 * From texts as xl.cfg(5) has them.
 * @param cpus one text for all virtual CPUs, or one each; null: any @throws ToolstackError
 */
export function parseAffinity(
  cpus: string | readonly string[] | null,
  vcpus: number,
  processors: number,
): Affinity {
  return Array.from({ length: vcpus }, (_, vcpu) => {
    const text = typeof cpus === 'string' ? cpus : cpus?.[vcpu];
    if (text === undefined || text === null) return null;
    const chosen = parseCpus(text, processors);
    return chosen.length === processors ? null : chosen;
  });
}
