/** What a bench run gives: medians, side by side. Of rates (MB/s, 1/s) more is better, of all else less. */

/** One quantity. A system that was not measured is null. */
export interface Row {
  name: string;
  group: string;
  unit: string;
  ours: number | null;
  native: number | null;
  tcg: number | null;
  uml: number | null;
  /** Ours without the translator; only where that was asked for. */
  interpreter?: number | null;
}

export const SYSTEMS = ['ours', 'native', 'tcg', 'uml', 'interpreter'] as const;
export type SystemName = (typeof SYSTEMS)[number];

const isRate = (unit: string) => unit.endsWith('/s');

export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

export function median(values: readonly number[]): number | null {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** Values of one quantity on one system, by the system's variant. */
type Variants = Map<string, number[]>;

/** Collects samples and makes rows of their medians, in the order in which the quantities were first seen. */
export class Samples {
  private readonly rows = new Map<string, { unit: string; values: Map<SystemName, Variants> }>();
  private readonly group: string;

  constructor(group: string) {
    this.group = group;
  }

  /** A system may be measured in several variants (models of its processor): in a row its best one counts. */
  add(name: string, unit: string, system: SystemName, value: number, variant = ''): void {
    const row = this.rows.get(name) ?? { unit, values: new Map<SystemName, Variants>() };
    this.rows.set(name, row);
    const variants = row.values.get(system) ?? new Map<string, number[]>();
    row.values.set(system, variants);
    variants.set(variant, [...(variants.get(variant) ?? []), value]);
  }

  get result(): Row[] {
    return [...this.rows].map(([name, { unit, values }]) => {
      const of = (system: SystemName) => {
        const medians = [...(values.get(system)?.values() ?? [])].map((all) => median(all)!);
        if (medians.length === 0) return null;
        return isRate(unit) ? Math.max(...medians) : Math.min(...medians);
      };
      const row: Row = {
        ...{ name, group: this.group, unit, ours: of('ours') },
        ...{ native: of('native'), tcg: of('tcg'), uml: of('uml') },
      };
      return values.has('interpreter') ? { ...row, interpreter: of('interpreter') } : row;
    });
  }
}

function show(value: number | null): string {
  if (value === null) return '-';
  if (value === 0) return '0';
  const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  return value.toFixed(Math.min(digits, 4));
}

/** How many times better we are than a peer; null if one of them was not measured. */
function advantage(row: Row, peer: SystemName): number | null {
  const [ours, other] = [row.ours, row[peer] ?? null];
  if (!ours || !other) return null;
  return isRate(row.unit) ? ours / other : other / ours;
}

function factor(value: number | null): string {
  if (value === null) return '-';
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

function layOut(lines: readonly string[][], left: number): string {
  const widths = lines[0]!.map((_, column) => Math.max(...lines.map((line) => line[column]!.length)));
  return lines
    .map((line) =>
      line
        .map((cell, column) =>
          column < left ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!),
        )
        .join('  '),
    )
    .map((line) => `${line.trimEnd()}\n`)
    .join('');
}

function peersIn(rows: readonly Row[]): SystemName[] {
  return SYSTEMS.filter((name) => name !== 'ours' && rows.some((row) => (row[name] ?? null) !== null));
}

/** A table as text: the medians, and how many times better than each other system we are. */
export function table(rows: readonly Row[]): string {
  const peers = peersIn(rows);
  const head = ['', 'unit', 'ours', ...peers, ...peers.map((peer) => `vs ${peer}`)];
  const lines = rows.map((row) => [
    `${row.group}: ${row.name}`,
    row.unit,
    show(row.ours),
    ...peers.map((peer) => show(row[peer] ?? null)),
    ...peers.map((peer) => factor(advantage(row, peer))),
  ]);
  return layOut([head, ...lines], 2);
}

/** The geometric mean, for each group, of how many times faster than each other system we are. */
export function means(rows: readonly Row[], groups: readonly string[]): string {
  const peers = peersIn(rows);
  const lines = groups.flatMap((group) => {
    const own = rows.filter((row) => row.group === group);
    if (own.length === 0) return [];
    const cells = peers.map((peer) => {
      const all = own.map((row) => advantage(row, peer)).filter((value) => value !== null);
      if (all.length === 0) return '-';
      return factor(Math.exp(all.reduce((sum, value) => sum + Math.log(value), 0) / all.length));
    });
    return cells.every((cell) => cell === '-') ? [] : [[group, ...cells]];
  });
  if (peers.length === 0 || lines.length === 0) return '';
  return layOut([['geometric mean', ...peers.map((peer) => `vs ${peer}`)], ...lines], 1);
}
