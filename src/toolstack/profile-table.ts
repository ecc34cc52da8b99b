/** A profile as a table, for a person. */
import type { VirtualAddress } from '../x86/index.ts';
import { DOMAIN_ACTIVITIES, type DomainActivity, type DomainProfile, type Profile } from './profile.ts';

const TITLES: Readonly<Record<DomainActivity, string>> = {
  interpreter: 'interpreter',
  translated: 'translated code',
  translation: 'translation',
  decoding: 'decoding',
  tlbMisses: 'TLB misses',
  floatingPoint: 'floating point by software',
  hypercalls: 'hypercalls',
  systemCalls: 'system calls, to the kernel',
  pageFaults: 'page faults',
  exceptions: 'other exceptions',
  hypervisor: 'hypervisor',
};

/** Names the symbol at an address of a guest's kernel, or null. */
export type Naming = (address: VirtualAddress) => string | null;

/** Hypercalls, and functions of the guest, that are listed: those above this share of the time, and how many at most. */
const LISTED_SHARE = 0.001;
const LISTED_FUNCTIONS = 25;

/** Shares are of all the time of all processors; lines that would be 0.0 % are left out. Ends without a newline. */
export function formatProfile(profile: Profile, naming: Naming | null = null): string {
  const { seconds, samples, processors } = profile;
  const all = Math.max(seconds * processors, 1e-9);
  const several = processors > 1 ? ` of ${processors} processors` : '';
  const lines = [`profile: ${seconds.toFixed(2)} s, ${samples} samples${several}`];
  const row = (title: string, seconds: number, depth: number) => {
    if (seconds / all < LISTED_SHARE / 2) return;
    const share = `${((seconds / all) * 100).toFixed(1)} %`;
    lines.push(`${share.padStart(9)}  ${'  '.repeat(depth)}${title}`);
  };
  for (const domain of profile.domains) {
    row(`domain ${domain.domid}`, domain.seconds, 0);
    for (const activity of DOMAIN_ACTIVITIES) {
      row(TITLES[activity], domain.activities[activity], 1);
      if (activity !== 'hypercalls') continue;
      for (const [name, seconds] of Object.entries(domain.hypercalls)) row(name, seconds, 2);
    }
  }
  row('machine (requests, scheduling)', profile.machine, 0);
  row('idle', profile.idle, 0);
  if (profile.compiler !== null) {
    const share = ((profile.compiler / Math.max(seconds, 1e-9)) * 100).toFixed(1);
    lines.push(`on another thread, translation: ${profile.compiler.toFixed(2)} s (${share} %)`);
  }
  for (const domain of profile.domains) {
    const functions = hottestFunctions(domain, naming);
    if (functions.length === 0) continue;
    lines.push(`functions of domain ${domain.domid}, by where it last jumped to:`);
    for (const [name, seconds] of functions.slice(0, LISTED_FUNCTIONS)) row(name, seconds, 0);
  }
  return lines.join('\n');
}

/** Time by function, longest first: kernel functions by name, programs together. */
export function hottestFunctions(
  { places }: DomainProfile,
  naming: Naming | null,
): readonly (readonly [name: string, seconds: number])[] {
  if (naming === null) return [];
  const functions = new Map<string, number>();
  for (const [place, seconds] of places) {
    const name =
      place >= 0 ? '(user programs)' : (naming(place)?.replace(/\+0x[0-9a-f]+$/, '') ?? '(unknown)');
    functions.set(name, (functions.get(name) ?? 0) + seconds);
  }
  return [...functions].sort(([, a], [, b]) => b - a);
}
