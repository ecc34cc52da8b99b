import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Frames } from './frames.ts';
import { MAILBOX_FRAMES, type Mail, MailboxReceiver, MailboxSender } from './mailbox.ts';
import { Memory, PAGE_SIZE } from './memory.ts';

function pair() {
  const memory = Memory.create(1 << 20);
  const address = new Frames(memory).allocContiguous(MAILBOX_FRAMES) * PAGE_SIZE;
  const sender = new MailboxSender(memory, address);
  let room = 0;
  const receiver = new MailboxReceiver(memory, address, () => room++);
  return { memory, address, sender, receiver, asked: () => room };
}

/** Takes all mail, flushing the sender's backlog whenever the receiver says that there is room. */
function drain({ sender, receiver, asked }: ReturnType<typeof pair>): Mail[] {
  const all: Mail[] = [];
  let seen = 0;
  for (;;) {
    const mail = receiver.receive();
    if (mail) all.push(mail);
    if (asked() > seen) {
      seen = asked();
      sender.flush();
    } else if (!mail) return all;
  }
}

describe('mailbox', () => {
  it('delivers texts and signals in order', () => {
    const box = pair();
    expect(box.receiver.receive()).toBeNull();
    box.sender.send('één');
    box.sender.signal(7, 0xffffffff);
    box.sender.send('');
    expect(drain(box)).toEqual([
      { kind: 'text', text: 'één' },
      { kind: 'signal', a: 7, b: 0xffffffff },
      { kind: 'text', text: '' },
    ]);
    expect(box.receiver.pending).toBe(false);
  });

  it('cuts a text larger than the ring, also inside a character', () => {
    const box = pair();
    const text = 'x' + '€'.repeat(100_000);
    box.sender.send(text);
    expect(box.sender.waiting).toBeGreaterThan(0);
    expect(drain(box)).toEqual([{ kind: 'text', text }]);
    expect(box.sender.waiting).toBe(0);
  });

  it('keeps what does not fit and asks for room', () => {
    const box = pair();
    for (let n = 0; n < 10_000; n++) box.sender.signal(n, 0);
    expect(box.sender.waiting).toBeGreaterThan(0);
    expect(drain(box).map((mail) => mail.kind === 'signal' && mail.a)).toEqual([...Array(10_000).keys()]);
  });

  it('any sequence of messages arrives whole, also when positions wrap at 2^32', () => {
    const message = fc.oneof(
      fc.string({ maxLength: 300, unit: 'grapheme' }).map((text) => ({ kind: 'text' as const, text })),
      fc.integer({ min: 1, max: 90_000 }).map((n) => ({ kind: 'text' as const, text: 'ä'.repeat(n) })),
      fc.record({ kind: fc.constant('signal' as const), a: fc.nat(), b: fc.nat() }),
    );
    fc.assert(
      fc.property(fc.array(message, { maxLength: 30 }), fc.nat(200_000), (messages, before) => {
        const box = pair();
        for (const word of [1, 2]) box.memory.u32[(box.address >>> 2) + word] = -before >>> 0;
        for (const mail of messages) {
          if (mail.kind === 'text') box.sender.send(mail.text);
          else box.sender.signal(mail.a, mail.b);
        }
        expect(drain(box)).toEqual(messages);
      }),
      { numRuns: 50 },
    );
  });

  it('does not sleep on a doorbell that rang since', () => {
    const box = pair();
    const { doorbell } = box.receiver;
    box.sender.signal(1, 2);
    const start = performance.now();
    box.receiver.wait(doorbell, 10_000);
    expect(performance.now() - start).toBeLessThan(5_000);
    box.receiver.wait(box.receiver.doorbell, 5);
  });
});
