import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { ConsoleHub } from './console-hub.ts';
import type { Replay } from './toolstack.ts';

const bytes = (text: string) => new TextEncoder().encode(text);

function viewer(hub: ConsoleHub, replay: Replay = 'unread') {
  const it = { text: '', fast: true, ended: 0 };
  const connection = hub.attach(
    {
      onOutput(piece) {
        it.text += new TextDecoder().decode(piece);
        return it.fast;
      },
      onEnd: () => it.ended++,
    },
    replay,
  );
  return Object.assign(it, { connection });
}

describe('a console', () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  it('shows everybody everything', () => {
    const hub = new ConsoleHub();
    const [a, b] = [viewer(hub), viewer(hub)];
    hub.output(bytes('hello '));
    b.connection.close();
    hub.output(bytes('world'));
    expect([a.text, b.text]).toEqual(['hello world', 'hello ']);
  });

  it('keeps what nobody saw for the first who looks', () => {
    const hub = new ConsoleHub();
    hub.output(bytes('booting\n'));
    expect(viewer(hub, 'none').text).toBe('');
    const hub2 = new ConsoleHub();
    hub2.output(bytes('booting\n'));
    expect(viewer(hub2).text).toBe('booting\n');
    expect(viewer(hub2).text).toBe('');
    expect(viewer(hub2, 'all').text).toBe('booting\n');
  });

  it('keeps the last 64 KiB', () => {
    const hub = new ConsoleHub();
    const lines = Array.from({ length: 30_000 }, (_, n) => `${n}\n`).join('');
    for (let at = 0; at < lines.length; at += 1000) hub.output(bytes(lines.slice(at, at + 1000)));
    expect(viewer(hub).text).toBe(lines.slice(-65536));
    hub.output(bytes(lines));
    expect(viewer(hub, 'all').text).toBe(lines.slice(-65536));
  });

  it('types for everybody', () => {
    const hub = new ConsoleHub();
    const one = viewer(hub);
    expect(one.connection.type(bytes('lost'))).toBe(4);
    const typed: string[] = [];
    hub.connect({
      type: (input) => typed.push(new TextDecoder().decode(input)) && 2,
      holdOutput: () => {},
    });
    expect(one.connection.type(bytes('abc'))).toBe(2);
    expect(typed).toEqual(['abc']);
  });

  it('waits for a slow viewer, but not for ever', () => {
    const hub = new ConsoleHub();
    const holds: boolean[] = [];
    hub.connect({ type: () => 0, holdOutput: (hold) => holds.push(hold) });
    const [slow, fast] = [viewer(hub), viewer(hub)];
    slow.fast = false;
    hub.output(bytes('1'));
    expect(holds).toEqual([true]);
    slow.connection.drained();
    expect(holds).toEqual([true, false]);
    hub.output(bytes('2'));
    vi.advanceTimersByTime(1900);
    expect(holds).toEqual([true, false, true]);
    vi.advanceTimersByTime(200);
    expect(holds).toEqual([true, false, true, false]);
    hub.output(bytes('345'));
    expect([slow.text, fast.text]).toEqual(['12', '12345']);
    slow.fast = true;
    slow.connection.drained();
    expect(slow.text).toBe('12\r\n[3 bytes of output were lost here]\r\n');
    hub.output(bytes('6'));
    expect(slow.text.endsWith('6')).toBe(true);
    expect(holds).toHaveLength(4);
  });

  it('goes on when the slow viewer leaves', () => {
    const hub = new ConsoleHub();
    const holds: boolean[] = [];
    hub.connect({ type: () => 0, holdOutput: (hold) => holds.push(hold) });
    const slow = viewer(hub);
    slow.fast = false;
    hub.output(bytes('1'));
    slow.connection.close();
    expect(holds).toEqual([true, false]);
  });

  it('ends with the domain; the last words can still be read', () => {
    const hub = new ConsoleHub();
    const early = viewer(hub);
    early.connection.close();
    hub.output(bytes('last words'));
    const there = viewer(hub);
    hub.end();
    hub.end();
    expect(there).toMatchObject({ text: 'last words', ended: 1 });
    expect(early.ended).toBe(0);
    expect(viewer(hub, 'all')).toMatchObject({ text: 'last words', ended: 1 });
  });
});
