/** The end on Domain 0's thread: makes data planes on the hypervisor's thread and speaks to them. */
import type { PlaneHandle, PlaneListener, PlaneOpener } from './data-plane.ts';
import type { DataPlanes, PlaneNotification } from './data-planes.ts';

/** How the other thread is reached. */
export interface PlaneTransport {
  /** Asks for a method of {@link DataPlanes}. */
  call(method: keyof DataPlanes & string, args: readonly unknown[]): Promise<unknown>;
  /** Two u32; the first marks the signal as one for a data plane ({@link PLANE_SIGNAL}). */
  signal(a: number, b: number): void;
}

/** Added to a data plane's number in a signal, so that it is no domain's. */
export const PLANE_SIGNAL = 0x8000_0000;

class Plane implements PlaneHandle {
  readonly id: number;
  readonly closed: Promise<void>;
  readonly listener: PlaneListener;
  /** Nothing of it is left. */
  gone!: () => void;
  private readonly transport: PlaneTransport;
  private closing = false;

  constructor(id: number, transport: PlaneTransport, listener: PlaneListener) {
    this.id = id;
    this.transport = transport;
    this.listener = listener;
    this.closed = new Promise((resolve) => {
      this.gone = resolve;
    });
  }

  send(message: unknown): void {
    // It cannot fail but with the whole processor, and whoever watches that is told.
    this.transport.call('planeMessage', [this.id, message]).catch(() => {});
  }

  signal(value: number): void {
    this.transport.signal(PLANE_SIGNAL + this.id, value);
  }

  close(): Promise<void> {
    if (!this.closing) {
      this.closing = true;
      this.transport.call('closePlane', [this.id]).catch(() => this.gone());
    }
    return this.closed;
  }
}

export class PlaneClient implements PlaneOpener {
  private readonly transport: PlaneTransport;
  private readonly planes = new Map<number, Plane>();
  private last = 0;

  constructor(transport: PlaneTransport) {
    this.transport = transport;
  }

  async open(
    kind: string,
    domid: number,
    parameters: unknown,
    listener: PlaneListener,
  ): Promise<PlaneHandle> {
    const plane = new Plane(++this.last, this.transport, listener);
    this.planes.set(plane.id, plane);
    try {
      await this.transport.call('openPlane', [plane.id, kind, domid, parameters]);
    } catch (error) {
      this.planes.delete(plane.id);
      throw error;
    }
    return plane;
  }

  /** Takes what a data plane told. */
  receive(notification: PlaneNotification): void {
    const plane = this.planes.get(notification.plane);
    switch (notification.kind) {
      case 'plane':
        plane?.listener.onMessage(notification.message);
        break;
      case 'plane-failed':
        plane?.listener.onFailure?.(new Error(notification.reason));
        break;
      case 'plane-closed':
        this.planes.delete(notification.plane);
        plane?.gone();
    }
  }

  /** The processor is gone, and all data planes with it. */
  fail(error: Error): void {
    for (const plane of [...this.planes.values()]) {
      this.planes.delete(plane.id);
      plane.listener.onFailure?.(error);
      plane.gone();
    }
  }
}
