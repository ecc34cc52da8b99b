/**
 * What a form does besides its operands, as far as it matters for other instructions' code: found out by watching the
 * definition emit, so that it is written nowhere twice. A translating thread learns it at the first instruction of a
 * form; the region in which that happens is emitted once more.
 */
import type { Form } from '../isa/form.ts';
import type { Place } from '../isa/semantics.ts';

/** A memory access: at the form's memory operand (null), or at a register plus a displacement. */
export interface Access {
  readonly place: Place | null;
  readonly bytes: number;
  readonly write: boolean;
}

export interface Facts {
  /** It sets flags on some paths only. */
  readonly conditionalFlags: boolean;
  /** It changes general registers on some paths only. */
  readonly conditionalChanges: boolean;
  /** General registers that it changes, other than operands; those to which it adds a constant. */
  readonly changes: readonly number[];
  readonly additions: readonly Place[];
  readonly accesses: readonly Access[];
}

const NONE: Facts = {
  conditionalFlags: false,
  conditionalChanges: false,
  changes: [],
  additions: [],
  accesses: [],
};

export class KnownForms {
  private readonly forms = new Map<number, Facts>();

  of(form: Form): Facts {
    return this.forms.get(form.index) ?? NONE;
  }

  /** @returns false: something is new, and what was emitted so far did not know it */
  learn(form: Form, seen: Facts): boolean {
    const known = this.of(form);
    if (includes(known, seen)) return true;
    const changes = union(known.changes, seen.changes, (register) => register);
    const changed = (place: Place) => changes.includes(place.register);
    const merged: Facts = {
      conditionalFlags: known.conditionalFlags || seen.conditionalFlags,
      conditionalChanges: known.conditionalChanges || seen.conditionalChanges,
      changes,
      additions: union(known.additions, seen.additions, placeKey).filter((place) => !changed(place)),
      accesses: union(known.accesses, seen.accesses, accessKey),
    };
    const same =
      merged.conditionalFlags === known.conditionalFlags &&
      merged.conditionalChanges === known.conditionalChanges &&
      merged.changes.length === known.changes.length &&
      merged.additions.length === known.additions.length &&
      merged.accesses.length === known.accesses.length;
    if (!same) this.forms.set(form.index, merged);
    return same;
  }
}

/** All of what was seen is known: as it is nearly always. */
function includes(known: Facts, seen: Facts): boolean {
  return (
    (known.conditionalFlags || !seen.conditionalFlags) &&
    (known.conditionalChanges || !seen.conditionalChanges) &&
    seen.changes.every((register) => known.changes.includes(register)) &&
    seen.additions.every((place) => known.additions.some((each) => placeKey(each) === placeKey(place))) &&
    seen.accesses.every((access) => known.accesses.some((each) => sameAccess(each, access)))
  );
}

export const sameAccess = (a: Access, b: Access): boolean =>
  a.bytes === b.bytes &&
  a.write === b.write &&
  a.place?.register === b.place?.register &&
  a.place?.displacement === b.place?.displacement;

const placeKey = ({ register, displacement }: Place) => register * 2 ** 20 + displacement;
const accessKey = ({ place, bytes, write }: Access) =>
  `${place === null ? '' : placeKey(place)}:${bytes}:${write}`;

function union<T>(a: readonly T[], b: readonly T[], key: (item: T) => unknown): readonly T[] {
  const keys = new Set(a.map(key));
  const more = b.filter((item) => !keys.has(key(item)));
  return more.length === 0 ? a : [...a, ...more];
}
