/** Which vCPU runs next on a physical CPU. */
import type { Vcpu } from './vcpu.ts';

/** A scheduling policy. It knows runnable vCPUs only. */
export interface Scheduler {
  /** A vCPU became runnable. */
  wake(vcpu: Vcpu): void;
  /** A vCPU is no longer runnable. */
  sleep(vcpu: Vcpu): void;
  /** A vCPU lets the others go first. */
  yield(vcpu: Vcpu): void;
  /** Who runs now; null: nobody is runnable. */
  pick(): Vcpu | null;
  /** A vCPU ran for so many ns. */
  charge(vcpu: Vcpu, ns: number): void;
}

/** For how long a vCPU runs before the next one's turn, ns. */
const QUANTUM = 10_000_000;

/** Each in turn, for a quantum. */
export class RoundRobin implements Scheduler {
  private readonly queue: Vcpu[] = [];
  private used = 0;

  wake(vcpu: Vcpu): void {
    if (!this.queue.includes(vcpu)) this.queue.push(vcpu);
  }

  sleep(vcpu: Vcpu): void {
    const place = this.queue.indexOf(vcpu);
    if (place < 0) return;
    this.queue.splice(place, 1);
    if (place === 0) this.used = 0;
  }

  yield(vcpu: Vcpu): void {
    if (this.queue[0] === vcpu) this.rotate();
  }

  pick(): Vcpu | null {
    return this.queue[0] ?? null;
  }

  charge(vcpu: Vcpu, ns: number): void {
    if (this.queue[0] !== vcpu) return;
    this.used += ns;
    if (this.used >= QUANTUM) this.rotate();
  }

  private rotate(): void {
    this.used = 0;
    this.queue.push(this.queue.shift()!);
  }
}
