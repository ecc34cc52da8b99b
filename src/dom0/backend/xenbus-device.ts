/**
 * A device's nodes in the store, and the back end's side of the states through which both ends go (public/io/
 * xenbus.h, blkif.h "STATE DIAGRAMS").
 *
 * The front end's nodes are the guest's: it may write anything there at any time, in any order, or remove them. So
 * nothing is concluded from a single event. Whenever something changes, the front end's state is read anew and the
 * back end takes the step that leads from where it is to where that state wants it; steps are taken one at a time,
 * and while one is under way (connecting takes a while) further changes only ask for another look after it.
 */
import { XenbusState } from '../../xen/public/io/xenbus.ts';
import type { XenstoreClient } from '../xenstore/client.ts';
import { domainPath } from '../xenstore/path.ts';
import { type Permission, Right } from '../xenstore/permissions.ts';

export type Nodes = Readonly<Record<string, string | number>>;

/** What the front end has published. */
export interface FrontEnd {
  /** The value of a node; null if there is none. */
  read(name: string): string | null;
  /** A number between 0 and `max`. @throws DeviceError if there is no such number and no fallback */
  number(name: string, max: number, fallback?: number): number;
}

/** The front end published what makes no sense, or the device cannot be had: the device closes with this. */
export class DeviceError extends Error {}

/** What a kind of device does. Calls never overlap. */
export interface XenbusDriver {
  /** The front end is ready: connects to it. @returns nodes that go with the state Connected @throws DeviceError */
  connect(front: FrontEnd): Promise<Nodes>;
  /** The front end goes, or the device: nothing of the guest may be in use after it. Also without a connect. */
  disconnect(): Promise<void>;
  /** Takes no more requests, and answers those that it has taken. A disconnect follows. */
  drain?(): Promise<void>;
}

export interface DeviceDescription {
  /** As it is called in the store: 'vbd', 'vif'. */
  readonly kind: string;
  readonly domid: number;
  readonly devid: number;
  /** Nodes for the guest to read, beside those that every device has. */
  readonly frontend: Nodes;
  /** The same on the back end's side: features go here. */
  readonly backend: Nodes;
}

/** Nodes of a front end, by path below its own. */
export type FrontEndNodes = readonly (readonly [path: string, value: string])[];

/** Those of them that say which device it is. */
const NOT_TAKEN: ReadonlySet<string> = new Set(['backend', 'backend-id', 'state']);

const STATES: ReadonlySet<number> = new Set(Object.values(XenbusState));

export class XenbusDevice {
  readonly kind: string;
  readonly domid: number;
  readonly devid: number;
  readonly frontendPath: string;
  readonly backendPath: string;
  /** Called after each change of the back end's state. */
  onState: (state: XenbusState) => void = () => {};
  private readonly store: XenstoreClient;
  private readonly driver: XenbusDriver;
  private readonly endWatch: () => void;
  private current: XenbusState = XenbusState.Initialising;
  /** The toolstack wants it to stay. */
  private online = true;
  private stepping: Promise<void> | null = null;
  private removed = false;
  private suspended = false;
  /** The driver is connected (in the state Closing too, until the front end has closed). */
  private connected = false;
  /** The front end's nodes as they were when connecting failed: not tried again before they change. */
  private refused = false;

  /**
   * Writes the device's nodes: the guest sees it from now on.
   * @param taken what a front end has published that is connected already, and does not know that this is another
   *   device (of a fork, or a domain that was restored); {@link settled} then says when it is
   */
  constructor(
    store: XenstoreClient,
    description: DeviceDescription,
    driver: XenbusDriver,
    taken: FrontEndNodes | null = null,
  ) {
    const { kind, domid, devid, frontend, backend } = description;
    this.store = store;
    this.driver = driver;
    this.kind = kind;
    this.domid = domid;
    this.devid = devid;
    this.frontendPath = `${domainPath(domid)}/device/${kind}/${devid}`;
    this.backendPath = `${domainPath(0)}/backend/${kind}/${domid}/${devid}`;
    const back: Permission[] = [
      { domid: 0, rights: Right.none },
      { domid, rights: Right.read },
    ];
    const front: Permission[] = [
      { domid, rights: Right.none },
      { domid: 0, rights: Right.read },
    ];
    store.remove(this.backendPath);
    store.remove(this.frontendPath);
    this.write(this.backendPath, back, {
      frontend: this.frontendPath,
      'frontend-id': domid,
      online: 1,
      state: XenbusState.Initialising,
      ...backend,
    });
    this.setState(XenbusState.InitWait);
    // The guest looks when its directory changes: all is there by the time that it sees the front end's part.
    this.write(this.frontendPath, front, {
      backend: this.backendPath,
      'backend-id': 0,
      ...frontend,
      ...Object.fromEntries(taken ?? []),
      state: taken === null ? XenbusState.Initialising : XenbusState.Connected,
    });
    if (taken !== null) this.connect();
    this.endWatch = store.watch(`${this.frontendPath}/state`, () => this.look());
  }

  /** The back end's state. */
  get state(): XenbusState {
    return this.current;
  }

  /** What the front end says that its state is. */
  get frontendState(): XenbusState {
    const value = Number(this.store.read(`${this.frontendPath}/state`) ?? '');
    return STATES.has(value) ? (value as XenbusState) : XenbusState.Unknown;
  }

  /** Whether front end and back end are connected, once no step is under way. */
  async settled(): Promise<boolean> {
    while (this.stepping) await this.stepping;
    return this.connected;
  }

  /** What the front end has published, for a device in the place of this one; null: it is not connected. */
  frontEndNodes(): FrontEndNodes | null {
    if (!this.connected) return null;
    const nodes: [string, string][] = [];
    const visit = (path: string) => {
      for (const name of this.store.list(`${this.frontendPath}/${path}`.replace(/\/$/, '')) ?? []) {
        const below = path === '' ? name : `${path}/${name}`;
        const value = this.store.read(`${this.frontendPath}/${below}`);
        if (value !== null && !NOT_TAKEN.has(below)) nodes.push([below, value]);
        visit(below);
      }
    };
    visit('');
    return nodes;
  }

  /**
   * Leaves the guest's rings as they are, with every request answered that was taken, until {@link resume}: the
   * device can then go on elsewhere. The guest does not learn of it.
   */
  async suspend(): Promise<void> {
    this.suspended = true;
    while (this.stepping) await this.stepping;
    if (!this.connected) return;
    await this.driver.drain?.();
    await this.driver.disconnect();
  }

  /** Goes on where it was left. */
  async resume(): Promise<void> {
    if (!this.suspended) return;
    this.suspended = false;
    if (!this.removed && this.connected) {
      this.step(async () => {
        try {
          await this.driver.connect(new StoreFrontEnd(this.store, this.frontendPath));
        } catch (error) {
          this.connected = false;
          this.report(error instanceof Error ? error.message : String(error));
          this.setState(XenbusState.Closing);
        }
      });
    } else this.look();
    await this.stepping;
  }

  /**
   * Asks the guest to let go of the device, as `xl block-detach` does.
   * @param timeout milliseconds after which it is asked no longer
   * @param sleep settles after so many milliseconds
   * @returns false: the guest did not, and the device is still there
   */
  async detach(timeout: number, sleep: (milliseconds: number) => Promise<void>): Promise<boolean> {
    this.online = false;
    this.store.write(`${this.backendPath}/online`, '0');
    if (this.state < XenbusState.Closing) this.setState(XenbusState.Closing);
    const interval = 50;
    for (let waited = 0; waited < timeout && !this.left; waited += interval) await sleep(interval);
    if (!this.left) {
      // It stays, and works as before if the guest did not begin to close it.
      this.online = true;
      this.store.write(`${this.backendPath}/online`, '1');
      return false;
    }
    await this.remove();
    return true;
  }

  /** Takes the device away, whatever the guest is doing with it. May be called more than once. */
  async remove(): Promise<void> {
    if (!this.removed) {
      this.removed = true;
      this.endWatch();
    }
    await this.stepping;
    await this.disconnect();
    this.setState(XenbusState.Closed);
    this.store.remove(this.backendPath);
    this.store.remove(this.frontendPath);
  }

  /** The driver found that the front end breaks the protocol, or that the device is gone for good. */
  fail(reason: string): void {
    if (this.removed) return;
    this.refused = true;
    this.report(reason);
    this.setState(XenbusState.Closing);
    this.step(() => this.disconnect());
  }

  /** The guest has nothing more to do with it (or never had). */
  private get left(): boolean {
    const front = this.frontendState;
    return (
      front === XenbusState.Closed || front === XenbusState.Unknown || front === XenbusState.Initialising
    );
  }

  private look(): void {
    // Whoever is at a step looks again after it.
    if (this.removed || this.stepping || this.suspended) return;
    switch (this.frontendState) {
      case XenbusState.Initialising:
        // After it had been further: the front end starts anew (its driver was loaded again, or another kernel).
        if (this.online && this.current !== XenbusState.InitWait) {
          this.refused = false;
          this.close(XenbusState.InitWait);
        }
        break;
      case XenbusState.Initialised:
      case XenbusState.Connected:
        if (!this.connected && this.online && !this.refused) this.connect();
        break;
      case XenbusState.Closing:
        // Requests may still come until it says Closed: a disk in use is written back first.
        if (this.current < XenbusState.Closing) this.setState(XenbusState.Closing);
        break;
      case XenbusState.Closed:
      case XenbusState.Unknown:
        if (this.current !== XenbusState.Closed && this.current !== XenbusState.InitWait)
          this.close(XenbusState.Closed);
        break;
    }
  }

  private connect(): void {
    this.step(async () => {
      await this.disconnect();
      try {
        const nodes = await this.driver.connect(new StoreFrontEnd(this.store, this.frontendPath));
        this.connected = true;
        if (this.removed) return;
        for (const [name, value] of Object.entries(nodes))
          this.store.write(`${this.backendPath}/${name}`, `${value}`, this.readable);
        this.setState(XenbusState.Connected);
      } catch (error) {
        await this.disconnect();
        this.refused = true;
        this.report(error instanceof Error ? error.message : String(error));
        this.setState(XenbusState.Closing);
      }
    });
  }

  private close(state: XenbusState): void {
    this.step(async () => {
      await this.disconnect();
      this.setState(state);
    });
  }

  private async disconnect(): Promise<void> {
    this.connected = false;
    await this.driver.disconnect();
  }

  private step(work: () => Promise<void>): void {
    const before = this.stepping ?? Promise.resolve();
    const step = before.then(work).catch((error: unknown) => this.report(String(error)));
    this.stepping = step;
    void step.then(() => {
      if (this.stepping !== step) return;
      this.stepping = null;
      this.look();
    });
  }

  private setState(state: XenbusState): void {
    this.current = state;
    this.store.write(`${this.backendPath}/state`, `${state}`, this.readable);
    this.onState(state);
  }

  /** Where Xen's tools look for what went wrong with a device. */
  private report(reason: string): void {
    const path = `${domainPath(0)}/error/backend/${this.kind}/${this.domid}/${this.devid}/error`;
    this.store.write(path, reason);
  }

  private get readable(): Permission[] {
    return [
      { domid: 0, rights: Right.none },
      { domid: this.domid, rights: Right.read },
    ];
  }

  private write(path: string, permissions: readonly Permission[], nodes: Nodes): void {
    this.store.mkdir(path, permissions);
    for (const [name, value] of Object.entries(nodes))
      this.store.write(`${path}/${name}`, `${value}`, permissions);
  }
}

class StoreFrontEnd implements FrontEnd {
  private readonly store: XenstoreClient;
  private readonly path: string;

  constructor(store: XenstoreClient, path: string) {
    this.store = store;
    this.path = path;
  }

  read(name: string): string | null {
    return this.store.read(`${this.path}/${name}`);
  }

  number(name: string, max: number, fallback?: number): number {
    const text = this.read(name);
    if (text === null && fallback !== undefined) return fallback;
    const value = text !== null && /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN;
    if (!(value <= max)) throw new DeviceError(`the front end's ${name} is ${text ?? 'missing'}`);
    return value;
  }
}
