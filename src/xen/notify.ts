/**
 * What the hypervisor has to tell Domain 0, collected: a guest that signals or prints without end must not fill the
 * other thread's memory. Events of a port are one notification a slice; printing has a rate.
 */
import type { Notification } from './domctl.ts';

/** Characters that a domain may print at once, and a second. */
const BURST = 1 << 18;
const RATE = 1 << 18;

/** What a domain may still print: as much as it has credit. */
interface Credit {
  characters: number;
  at: number;
  /** Some was left out. */
  lost: boolean;
}

export class NotificationQueue {
  private readonly tell: (notification: Notification) => void;
  private readonly events = new Map<number, Set<number>>();
  private readonly text = new Map<number, string>();
  private readonly credits = new Map<number, Credit>();

  constructor(tell: (notification: Notification) => void) {
    this.tell = tell;
  }

  /** @param now system time, ns */
  add(notification: Notification, now: number): void {
    switch (notification.kind) {
      case 'event': {
        const ports = this.events.get(notification.domid);
        if (ports) ports.add(notification.port);
        else this.events.set(notification.domid, new Set([notification.port]));
        return;
      }
      case 'console':
        this.print(notification.domid, notification.text, now);
        return;
      case 'shutdown':
        this.flush();
        this.tell(notification);
        return;
      default:
        this.tell(notification);
    }
  }

  /** The domain is gone. */
  forget(domid: number): void {
    this.events.delete(domid);
    this.text.delete(domid);
    this.credits.delete(domid);
  }

  /** Tells what was collected. */
  flush(): void {
    if (this.text.size !== 0) {
      for (const [domid, text] of this.text) this.tell({ kind: 'console', domid, text });
      this.text.clear();
    }
    if (this.events.size !== 0) {
      for (const [domid, ports] of this.events)
        for (const port of ports) this.tell({ kind: 'event', domid, port });
      this.events.clear();
    }
  }

  private print(domid: number, text: string, now: number): void {
    let credit = this.credits.get(domid);
    if (!credit) {
      credit = { characters: BURST, at: now, lost: false };
      this.credits.set(domid, credit);
    }
    credit.characters = Math.min(BURST, credit.characters + ((now - credit.at) / 1e9) * RATE);
    credit.at = now;
    if (credit.characters < text.length) {
      credit.lost = true;
      return;
    }
    credit.characters -= text.length;
    const before = (this.text.get(domid) ?? '') + (credit.lost ? '\n(output lost: too much at once)\n' : '');
    credit.lost = false;
    this.text.set(domid, before + text);
  }
}
