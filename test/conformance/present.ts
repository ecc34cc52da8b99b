/** Failures for people, and as files that can be replayed. */

import { flagNames } from './compare.ts';
import type { Choice } from './encode.ts';
import { describe } from './instruction.ts';
import type { Failure, Report } from './run.ts';
import type { Variant } from './variants.ts';
import { Batch, CASE, COMPLETE, FX, PLACE, REGISTER_NAMES } from './wire.ts';

const hex = (value: number | bigint, digits: number): string => value.toString(16).padStart(digits, '0');

function hexBytes(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => hex(byte, 2)).join('');
}

/** The whole case: instruction, where it differs, and the state it began with. */
export function failureText(failure: Failure): string {
  const { instruction, record, vector } = failure;
  const view = new DataView(record.buffer, record.byteOffset, record.length);
  const lines = [describe(instruction)];
  lines.push(`  natively: ${vector === COMPLETE ? 'completes' : `exception ${vector}`}`);
  for (const { what, expected: wanted, got } of failure.differences) {
    lines.push(`  ${what.padEnd(12)} expected ${wanted}   got ${got}`);
  }
  lines.push(
    `  at ${hex(PLACE.codeBase + instruction.offset, 8)}, memory operand ${
      failure.target < 0n ? 'none' : hex(failure.target, 16)
    }, before:`,
  );
  for (let row = 0; row < 16; row += 4) {
    const cells = REGISTER_NAMES.slice(row, row + 4).map(
      (name, i) => `${name.padStart(3)} ${hex(view.getBigUint64(CASE.regs + 8 * (row + i), true), 16)}`,
    );
    lines.push(`    ${cells.join(' ')}`);
  }
  const flags = view.getUint32(CASE.rflags, true);
  lines.push(
    `    rflags ${hex(flags, 6)} (${flagNames(flags)}) fs ${hex(view.getBigUint64(CASE.fsBase, true), 16)} gs ${hex(
      view.getBigUint64(CASE.gsBase, true),
      16,
    )}`,
  );
  if (instruction.variant.form.definition.fpu) {
    const fx = CASE.fx;
    lines.push(
      `    fcw ${hex(view.getUint16(fx + FX.fcw, true), 4)} fsw ${hex(view.getUint16(fx + FX.fsw, true), 4)} ftw ${hex(
        view.getUint8(fx + FX.ftw),
        2,
      )} mxcsr ${hex(view.getUint32(fx + FX.mxcsr, true), 4)}`,
    );
    for (let i = 0; i < 8; i++) {
      const at = fx + FX.st + 16 * i;
      const x = (n: number): string => {
        const slot = fx + FX.xmm + 16 * n;
        return `xmm${n} ${hex(view.getBigUint64(slot + 8, true), 16)}_${hex(view.getBigUint64(slot, true), 16)}`;
      };
      lines.push(
        `    st${i} ${hex(view.getUint16(at + 8, true), 4)}:${hex(view.getBigUint64(at, true), 16)} ${x(i)} ${x(i + 8)}`,
      );
    }
  }
  let patch: number = CASE.end;
  for (let n = view.getUint32(CASE.patches, true); n > 0; n--) {
    const length = view.getUint32(patch + 4, true);
    const bytes = hexBytes(record.subarray(patch + 8, patch + 8 + Math.min(length, 64)));
    lines.push(
      `    [${hex(PLACE.dataBase + view.getUint32(patch, true), 8)}] ${bytes}${length > 64 ? '...' : ''}`,
    );
    patch += 8 + ((length + 7) & ~7);
  }
  return lines.join('\n');
}

/** A case as it stands in a file. */
interface Recorded {
  readonly variant: string;
  readonly bytes: number[];
  readonly offset: number;
  readonly memoryBytes: number;
  readonly choice: Omit<Choice, 'immediates'> & { readonly immediates: string[] };
  readonly target: string;
  readonly record: string;
  readonly background: string;
}

export function serialize(failures: readonly Failure[], background: Uint8Array): string {
  const all: Recorded[] = failures.map(({ instruction, target, record }, i) => ({
    variant: instruction.variant.name,
    bytes: instruction.bytes,
    offset: instruction.offset,
    memoryBytes: instruction.memoryBytes,
    choice: { ...instruction.choice, immediates: instruction.choice.immediates.map(String) },
    target: target.toString(),
    record: hexBytes(record),
    background: i === 0 ? hexBytes(background) : '',
  }));
  return `${JSON.stringify(all, null, 1)}\n`;
}

function bytesOf(text: string): Uint8Array {
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}

export interface Replay {
  readonly batch: Batch;
  readonly cases: { instruction: Failure['instruction']; target: bigint }[];
}

/** @throws Error where a variant of that name does not exist any more */
export function deserialize(text: string, variants: readonly Variant[]): Replay {
  const all = JSON.parse(text) as Recorded[];
  const batch = new Batch(bytesOf(all[0]?.background ?? ''));
  const cases = all.map((one) => {
    const variant = variants.find(({ name }) => name === one.variant);
    if (variant === undefined) throw new Error(`no form is called '${one.variant}' (any more)`);
    batch.append(bytesOf(one.record));
    const choice = { ...one.choice, immediates: one.choice.immediates.map(BigInt) };
    const { bytes, offset, memoryBytes } = one;
    return { instruction: { variant, choice, bytes, offset, memoryBytes }, target: BigInt(one.target) };
  });
  return { batch, cases };
}

export function summary(report: Report, engine: string): string {
  const { forms, variants, definitions, states, mismatches, hung, milliseconds } = report;
  const ways = `${definitions} definitions, ${forms} forms, ${variants} with addressing and prefixes`;
  const lines = [
    `${engine} against the host's CPU: ${ways}, ${states} states, ${mismatches} mismatches (${(milliseconds / 1000).toFixed(1)} s)`,
  ];
  if (hung > 0) lines.push(`${hung} cases did not end on the host's CPU: the generator is at fault`);
  return lines.join('\n');
}

/** The mismatches by instruction, the most frequent first, with one case of each form. */
export function markdown(report: Report, seed: string): string {
  const groups = new Map<string, { count: number; names: string[]; failures: Failure[] }>();
  for (const failure of report.failures) {
    const { name, form } = failure.instruction.variant;
    const mnemonic = form.definition.name;
    const group = groups.get(mnemonic) ?? { count: 0, names: [], failures: [] };
    groups.set(mnemonic, group);
    if (!group.names.includes(name)) {
      group.names.push(name);
      group.count += report.byVariant.get(name) ?? 0;
    }
    group.failures.push(failure);
  }
  const lines = [`# Mismatches (seed ${seed})`, '', summary(report, 'processor'), ''];
  for (const [mnemonic, group] of [...groups].sort(([a], [b]) => a.localeCompare(b))) {
    lines.push(`## ${mnemonic}: ${group.count} in ${group.names.length} forms`, '');
    const fields = new Map<string, number>();
    for (const { differences } of group.failures) {
      for (const { what } of differences) {
        const field = what.startsWith('[') ? 'memory' : what;
        fields.set(field, (fields.get(field) ?? 0) + 1);
      }
    }
    lines.push(`differs in: ${[...fields].map(([what, n]) => `${what} (${n})`).join(', ')}`, '');
    for (const name of group.names.slice(0, 12)) lines.push(`- ${name}: ${report.byVariant.get(name)}`);
    if (group.names.length > 12) lines.push(`- and ${group.names.length - 12} more`);
    lines.push('', '```');
    const shown = new Set<string>();
    for (const failure of group.failures) {
      // One case of each kind of difference.
      const kind = failure.differences.map(({ what }) => (what.startsWith('[') ? 'memory' : what)).join();
      if (!shown.has(kind) && shown.size < 5) lines.push(failureText(failure));
      shown.add(kind);
    }
    lines.push('```', '');
  }
  return lines.join('\n');
}
