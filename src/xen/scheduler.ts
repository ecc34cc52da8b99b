/**
 * Which virtual CPU runs next on a physical one, in two steps of Borrowed Virtual Time (bvt.ts).
 *
 * Domains share the processor by their parameters, whatever number of virtual CPUs they have: what any of them uses
 * is charged to the domain. Those of a domain then share the domain's turns equally and in short pieces, because
 * they wait for each other: one that spins until another has answered should not do so for a whole allowance.
 *
 * Time that passes while no guest runs (requests from Domain 0, an idle machine) is charged to nobody: only the time
 * between `resume` and `pause` counts, and what is said to be work for a domain (`served`).
 */
import { Bvt, type BvtEntry, type BvtParameters } from './bvt.ts';
import type { EntryView } from './bvt-balance.ts';
import type { Domain } from './domain.ts';
import type { Vcpu } from './vcpu.ts';

/** For how long a virtual CPU may go on when another one of its domain is due, ns. */
const VCPU_ALLOWANCE = 500_000;
const VCPU_MCU = 50_000;

/** A processor's queue of domains, as plain data. */
export interface DomainQueue {
  /** Scheduler virtual time, since the beginning. */
  readonly virtualTime: number;
  readonly runnable: readonly (Omit<EntryView, 'pcpus'> & { readonly domid: number })[];
}

/** A domain's place among the others, and the queue of its own vCPUs. */
class Unit {
  readonly domid: number;
  readonly entry: BvtEntry<Unit>;
  readonly vcpus: Bvt<Vcpu>;
  /** By number. */
  private readonly entries: BvtEntry<Vcpu>[] = [];

  constructor(domid: number, domains: Bvt<Unit>, now: number) {
    this.domid = domid;
    this.entry = domains.add(this);
    this.vcpus = new Bvt<Vcpu>(now, { allowance: VCPU_ALLOWANCE, mcu: VCPU_MCU });
  }

  of(vcpu: Vcpu): BvtEntry<Vcpu> {
    this.entries[vcpu.id] ??= this.vcpus.add(vcpu);
    return this.entries[vcpu.id]!;
  }
}

export class Scheduler {
  private readonly domains: Bvt<Unit>;
  private readonly units = new Map<Domain, Unit>();
  private running = false;
  private at: number;

  /** @param now system time, ns; all further times too */
  constructor(now: number) {
    this.at = now;
    this.domains = new Bvt<Unit>(now);
  }

  // --- Parameters ---

  /** Context-switch allowance of the processor, ns. */
  get allowance(): number {
    return this.domains.allowance;
  }

  set allowance(allowance: number) {
    this.domains.allowance = allowance;
  }

  parameters(domain: Domain): BvtParameters {
    return this.unit(domain).entry.parameters;
  }

  setParameters(domain: Domain, parameters: BvtParameters): void {
    this.domains.set(this.unit(domain).entry, parameters);
  }

  // --- Who takes part ---

  /** A vCPU is runnable from now on. */
  wake(vcpu: Vcpu, now: number): void {
    this.account(now);
    const unit = this.unit(vcpu.domain);
    const { vcpus } = unit;
    if (unit !== this.domains.current?.item) vcpus.skip(now);
    vcpus.wake(unit.of(vcpu));
    this.domains.wake(unit.entry);
  }

  /** A vCPU is no longer runnable. */
  sleep(vcpu: Vcpu, now: number): void {
    this.account(now);
    const unit = this.units.get(vcpu.domain);
    if (unit === undefined) return;
    unit.vcpus.sleep(unit.of(vcpu));
    if (unit.vcpus.load === 0) this.domains.sleep(unit.entry);
  }

  /** A vCPU lets the others go first: those of its domain, or if there are none, other domains. */
  yield(vcpu: Vcpu, now: number): void {
    this.account(now);
    const unit = this.unit(vcpu.domain);
    if (unit.vcpus.load > 1) unit.vcpus.yield(unit.of(vcpu));
    else this.domains.yield(unit.entry);
  }

  /** The domain is gone. */
  remove(domain: Domain): void {
    const unit = this.units.get(domain);
    if (unit === undefined) return;
    this.domains.remove(unit.entry);
    this.units.delete(domain);
  }

  // --- Other processors (bvt-balance.ts) ---

  /** How many domains run or wait to run. */
  get load(): number {
    return this.domains.load;
  }

  queue(): DomainQueue {
    const { domains } = this;
    return {
      virtualTime: domains.virtualTime,
      runnable: domains.waiting.map((entry) => ({
        domid: entry.item.domid,
        actual: domains.actual(entry),
        mcuAdvance: entry.parameters.mcuAdvance,
        running: entry === domains.current,
      })),
    };
  }

  /** Brings virtual time forward where nobody waits (see {@link Bvt.lift}). */
  lift(time: number): void {
    this.domains.lift(time);
  }

  /** A domain's actual virtual time since the beginning. */
  actual(domain: Domain): number {
    return this.domains.actual(this.unit(domain).entry);
  }

  /** A domain came from another processor, with the virtual time that it had there: it is owed what it waited for. */
  place(domain: Domain, actual: number): void {
    this.domains.place(this.unit(domain).entry, actual);
  }

  // --- Time ---

  /** Guests run from now on. */
  resume(now: number): void {
    this.account(now);
    this.running = true;
  }

  /** The current vCPU ran until now (if guests run at all). */
  account(now: number): void {
    if (now <= this.at) return;
    const vcpus = this.domains.current?.item.vcpus;
    if (this.running) {
      this.domains.advance(now);
      vcpus?.advance(now);
    } else {
      this.domains.skip(now);
      vcpus?.skip(now);
    }
    this.at = now;
  }

  /** Guests do not run until {@link resume}. */
  pause(now: number): void {
    this.account(now);
    this.running = false;
  }

  /** The machine worked for a domain, for so many ns, as its back ends do. While guests run that is in their time. */
  served(domain: Domain, time: number): void {
    if (!this.running) this.domains.owe(this.unit(domain).entry, time);
  }

  // --- Who runs ---

  /** The vCPU to run now; null: none is runnable. The same one until its slice is over. */
  pick(): Vcpu | null {
    const before = this.domains.current;
    const unit = this.domains.pick();
    if (unit === null) return null;
    if (unit.entry !== before) unit.vcpus.skip(this.at);
    return unit.vcpus.pick();
  }

  /** For how much longer the one that was picked runs if nothing else happens, ns; may be Infinity. */
  get slice(): number {
    const { current } = this.domains;
    return current === null ? 0 : Math.min(this.domains.slice, current.item.vcpus.slice);
  }

  private unit(domain: Domain): Unit {
    let unit = this.units.get(domain);
    if (unit === undefined) {
      unit = new Unit(domain.id, this.domains, this.at);
      this.units.set(domain, unit);
    }
    return unit;
  }
}
