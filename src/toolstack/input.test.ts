import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { InputQueue } from './input.ts';

const bytes = (text: string) => new TextEncoder().encode(text);

class Guest {
  room: number;
  typed = '';
  taken = 0;

  constructor(room: number) {
    this.room = room;
  }

  type(input: Uint8Array): number {
    const count = Math.min(input.length, this.room - this.pendingInput);
    this.typed += new TextDecoder().decode(input.subarray(0, count));
    return count;
  }

  get pendingInput(): number {
    return this.typed.length - this.taken;
  }

  take(): void {
    this.taken = this.typed.length;
  }
}

function source() {
  const log: string[] = [];
  return { log, pause: () => log.push('pause'), resume: () => log.push('resume') };
}

describe('the input queue', () => {
  beforeEach(() => {
    vi.useFakeTimers();
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  it('keeps what is typed before the guest listens, and holds the source', () => {
    const from = source();
    const queue = new InputQueue(from);
    queue.add(bytes('one\n'));
    expect(from.log).toEqual(['pause']);
    const guest = new Guest(100);
    queue.connect(guest);
    expect(guest.typed).toBe('one\n');
    expect(from.log).toEqual(['pause', 'resume']);
  });

  it('goes on where the guest stopped taking', () => {
    const from = source();
    const queue = new InputQueue(from);
    const guest = new Guest(3);
    queue.connect(guest);
    queue.add(bytes('abcdefgh'));
    expect(guest.typed).toBe('abc');
    expect(from.log.at(-1)).toBe('pause');
    for (let round = 0; round < 2; round++) {
      guest.take();
      queue.pump();
    }
    expect(guest.typed).toBe('abcdefgh');
    expect(from.log.at(-1)).toBe('resume');
  });

  it('ends with an end-of-file character at the start of a line, repeated until it works', () => {
    const queue = new InputQueue(source());
    const guest = new Guest(100);
    queue.connect(guest);
    queue.add(bytes('exit 3'));
    queue.end();
    expect(guest.typed).toBe('exit 3\n\x04');
    vi.advanceTimersByTime(5000);
    expect(guest.typed).toBe('exit 3\n\x04');
    guest.take();
    vi.advanceTimersByTime(1500);
    expect(guest.typed).toBe('exit 3\n\x04\x04');
    queue.close();
    guest.take();
    vi.advanceTimersByTime(5000);
    expect(guest.typed).toBe('exit 3\n\x04\x04');
  });

  it('an empty input is an end at once', () => {
    const queue = new InputQueue(source());
    queue.end();
    const guest = new Guest(100);
    queue.connect(guest);
    expect(guest.typed).toBe('\x04');
    queue.close();
  });

  it('goes on with the next domain after a reboot', () => {
    const queue = new InputQueue(source());
    const first = new Guest(100);
    queue.connect(first);
    queue.add(bytes('reboot\n'));
    queue.connect(null);
    queue.add(bytes('poweroff\n'));
    const second = new Guest(100);
    queue.connect(second);
    expect([first.typed, second.typed]).toEqual(['reboot\n', 'poweroff\n']);
  });
});
