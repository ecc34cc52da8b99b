/**
 * The data planes on the hypervisor's thread: made, given their events, messages, time and turns, and ended.
 *
 * A data plane ends in two steps. First it is closed: it hears no more events, and no page is mapped for it any more.
 * If the host is still at work on pages of the guest it stays until that is done (their frames belong to it so long,
 * even if the domain is destroyed meanwhile); then its mappings end, and the control plane is told.
 */

import type { Domain } from '../../xen/domain.ts';
import { GrantAccess } from '../../xen/grant-access.ts';
import type { Hypervisor } from '../../xen/hypervisor.ts';
import { GNTST } from '../../xen/public/grant_table.ts';
import { Timer } from '../../xen/timers.ts';
import type { DataPlane, DataPlaneFactory, GuestLink } from './data-plane.ts';

/** What a data plane tells Domain 0's thread. */
export type PlaneNotification =
  | { kind: 'plane'; plane: number; message: unknown }
  /** Nothing is left of it. */
  | { kind: 'plane-closed'; plane: number }
  /** It threw, and is being closed. */
  | { kind: 'plane-failed'; plane: number; reason: string };

/** Runs of data planes' work between two slices of the guests. */
const TURNS = 32;

interface Running {
  readonly id: number;
  readonly domain: Domain | null;
  readonly access: GrantAccess | null;
  readonly ports: Set<number>;
  readonly timer: Timer;
  plane: DataPlane | null;
  scheduled: boolean;
  closing: boolean;
}

export class DataPlanes {
  private readonly hypervisor: Hypervisor;
  private readonly factories: ReadonlyMap<string, DataPlaneFactory>;
  private readonly tell: (notification: PlaneNotification) => void;
  private readonly planes = new Map<number, Running>();
  /** Who serves which port of a domain. */
  private readonly ports = new Map<Domain, Map<number, Running>>();
  private readonly queue: Running[] = [];

  constructor(
    hypervisor: Hypervisor,
    factories: ReadonlyMap<string, DataPlaneFactory>,
    tell: (notification: PlaneNotification) => void,
  ) {
    this.hypervisor = hypervisor;
    this.factories = factories;
    this.tell = tell;
  }

  /** @param id a new number of the caller's @throws Error: no such kind or domain, or what the factory threw */
  openPlane(id: number, kind: string, domid: number, parameters: unknown): void {
    if (this.planes.has(id)) throw new RangeError(`there is a data plane ${id} already`);
    const factory = this.factories.get(kind);
    if (!factory) throw new RangeError(`there are no devices of kind ${kind}`);
    const domain = domid === 0 ? null : this.hypervisor.domain(domid);
    if (domain === undefined) throw new RangeError(`there is no domain ${domid}`);
    const running: Running = {
      id,
      domain,
      access: domain && new GrantAccess(domain),
      ports: new Set(),
      timer: new Timer((now) => this.guard(running, (plane) => plane.onTimer?.(now))),
      plane: null,
      scheduled: false,
      closing: false,
    };
    this.planes.set(running.id, running);
    try {
      running.plane = factory(this.linkOf(running, domid), parameters);
    } catch (error) {
      running.closing = true;
      this.silence(running);
      this.planes.delete(running.id);
      running.access?.close();
      throw error;
    }
  }

  /** Nothing happens if it is gone already. */
  planeMessage(id: number, message: unknown): void {
    const running = this.planes.get(id);
    if (!running) return;
    this.guard(running, (plane) => plane.onMessage(message));
    this.finish(running);
  }

  /** Nothing happens if it is gone already. */
  signal(id: number, value: number): void {
    const running = this.planes.get(id);
    if (!running) return;
    this.guard(running, (plane) => plane.onSignal(value));
    this.finish(running);
  }

  /** Begins its end; a notification tells of the end itself. */
  closePlane(id: number): void {
    const running = this.planes.get(id);
    if (running) this.close(running);
  }

  /** The domain is about to be destroyed: its data planes end. @param domid any value */
  domainGone(domid: unknown): void {
    for (const running of [...this.planes.values()]) if (running.domain?.id === domid) this.close(running);
    for (const domain of this.ports.keys()) if (domain.id === domid) this.ports.delete(domain);
  }

  /** Gives those that asked for it their turn. @returns true: something was done, which may have woken a guest */
  work(): boolean {
    for (let turn = 0; turn < TURNS; turn++) {
      const running = this.queue.shift();
      if (!running) return turn > 0;
      running.scheduled = false;
      if (running.closing) continue;
      this.guard(running, (plane) => {
        if (plane.work?.()) this.schedule(running);
      });
    }
    return true;
  }

  private linkOf(running: Running, domid: number): GuestLink {
    const { hypervisor } = this;
    const { access, domain } = running;
    // A domain that is dying, or a device that goes, gives nothing any more.
    const usable = () => (running.closing ? null : access);
    return {
      domid,
      memory: hypervisor.memory,
      frames: hypervisor.frames,
      map: (ref, readonly) => usable()?.map(ref, readonly) ?? GNTST.bad_domain,
      unmap: (handle) => {
        access?.unmap(handle);
      },
      wrote: (handle) => access?.wrote(handle),
      briefly: (ref, write) => usable()?.briefly(ref, write) ?? 0,
      copyFrom: (ref, offset, length, to) => usable()?.copyFrom(ref, offset, length, to) ?? GNTST.bad_domain,
      copyTo: (ref, offset, length, from) => usable()?.copyTo(ref, offset, length, from) ?? GNTST.bad_domain,
      bind: (port) => !running.closing && domain !== null && this.bind(running, domain, port),
      unbind: (port) => this.unbind(running, port),
      notify: (port) => {
        if (domain !== null && !domain.dying) domain.events.notifyFromDom0(port);
      },
      now: () => hypervisor.now(),
      setTimer: (deadline) => {
        hypervisor.timers.cancel(running.timer);
        if (running.closing || deadline === Number.POSITIVE_INFINITY) return;
        // Never at once: a data plane is not called while it is at work.
        hypervisor.timers.set(running.timer, Math.max(deadline, hypervisor.now() + 1));
      },
      schedule: () => this.schedule(running),
      post: (message) => {
        if (!running.plane) throw new Error('a data plane posts nothing before it is made');
        this.tell({ kind: 'plane', plane: running.id, message });
      },
    };
  }

  private bind(running: Running, domain: Domain, port: number): boolean {
    let ports = this.ports.get(domain);
    if (!ports) {
      ports = new Map();
      this.ports.set(domain, ports);
      const others = domain.events.onDom0;
      const served = ports;
      domain.events.onDom0 = (signalled) => {
        const server = served.get(signalled);
        if (server) this.guard(server, (plane) => plane.onEvent(signalled));
        else others(signalled);
      };
    }
    if (ports.has(port) || domain.dying || !domain.events.bindFromDom0(port)) return false;
    ports.set(port, running);
    running.ports.add(port);
    return true;
  }

  private unbind(running: Running, port: number): void {
    const { domain } = running;
    if (!domain || !running.ports.delete(port)) return;
    this.ports.get(domain)?.delete(port);
    if (!domain.dying) domain.events.closeFromDom0(port);
  }

  private schedule(running: Running): void {
    if (running.scheduled || running.closing) return;
    running.scheduled = true;
    this.queue.push(running);
  }

  /** Whatever a data plane throws is its own end, and nobody else's. What it works is in its domain's time. */
  private guard(running: Running, work: (plane: DataPlane) => void): void {
    if (!running.plane) return;
    const { hypervisor } = this;
    const begun = hypervisor.now();
    try {
      work(running.plane);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      this.tell({ kind: 'plane-failed', plane: running.id, reason });
      this.close(running);
    }
    const { domain } = running;
    if (domain !== null && !domain.dying) hypervisor.scheduler.served(domain, hypervisor.now() - begun);
  }

  private close(running: Running): void {
    if (running.closing) return;
    running.closing = true;
    this.silence(running);
    this.finish(running, true);
  }

  /** No event and no timer reaches it any more. */
  private silence(running: Running): void {
    this.hypervisor.timers.cancel(running.timer);
    for (const port of [...running.ports]) this.unbind(running, port);
  }

  private finish(running: Running, first = false): void {
    if (!running.closing || !this.planes.has(running.id)) return;
    const { plane } = running;
    let done = true;
    try {
      if (plane) done = first ? plane.close() : (plane.idle?.() ?? true);
    } catch {
      // A data plane that cannot even say what it is waiting for: its mappings would never end, so they end now.
    }
    if (!done) return;
    this.planes.delete(running.id);
    running.access?.close();
    this.tell({ kind: 'plane-closed', plane: running.id });
  }
}
