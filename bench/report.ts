/** What a bench run gives: medians, side by side. */

/** One quantity. A system that was not measured is null. */
export interface Row {
  name: string;
  group: string;
  unit: string;
  ours: number | null;
  native: number | null;
  tcg: number | null;
  uml: number | null;
}

export const SYSTEMS = ['ours', 'native', 'tcg', 'uml'] as const;
export type SystemName = (typeof SYSTEMS)[number];

export function median(values: readonly number[]): number | null {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** Collects samples and makes rows of their medians, in the order in which the quantities were first seen. */
export class Samples {
  private readonly rows = new Map<string, { unit: string; values: Map<SystemName, number[]> }>();
  private readonly group: string;

  constructor(group: string) {
    this.group = group;
  }

  add(name: string, unit: string, system: SystemName, value: number): void {
    const row = this.rows.get(name) ?? { unit, values: new Map<SystemName, number[]>() };
    this.rows.set(name, row);
    const values = row.values.get(system) ?? [];
    row.values.set(system, [...values, value]);
  }

  get result(): Row[] {
    return [...this.rows].map(([name, { unit, values }]) => {
      const of = (system: SystemName) => median(values.get(system) ?? []);
      const [ours, native, tcg, uml] = SYSTEMS.map(of) as [number | null, ...(number | null)[]];
      return { name, group: this.group, unit, ours, native: native!, tcg: tcg!, uml: uml! };
    });
  }
}

function show(value: number | null): string {
  if (value === null) return '-';
  if (value === 0) return '0';
  const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  return value.toFixed(Math.min(digits, 4));
}

function ratio(value: number | null, other: number | null): string {
  return value === null || other === null || other === 0 ? '-' : `${(value / other).toPrecision(3)}x`;
}

/** A table as text: the medians, and ours as a multiple of each other system's. */
export function table(rows: readonly Row[]): string {
  const peers = SYSTEMS.filter((name) => name !== 'ours' && rows.some((row) => row[name] !== null));
  const head = ['', 'unit', 'ours', ...peers.flatMap((peer) => [peer, `ours/${peer}`])];
  const lines = rows.map((row) => [
    `${row.group}: ${row.name}`,
    row.unit,
    show(row.ours),
    ...peers.flatMap((peer) => [show(row[peer]), ratio(row.ours, row[peer])]),
  ]);
  const widths = head.map((_, column) => Math.max(...[head, ...lines].map((line) => line[column]!.length)));
  return [head, ...lines]
    .map((line) =>
      line
        .map((cell, column) => (column < 2 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!)))
        .join('  '),
    )
    .map((line) => `${line.trimEnd()}\n`)
    .join('');
}
