import { describe, expect, it } from 'vitest';
import { ForwardSpecError, parseForward } from './forward-spec.ts';

const BASE = { protocol: 'tcp', address: '127.0.0.1', port: 8080, guestAddress: null, guestPort: 80 };

describe('--forward', () => {
  it.each([
    ['8080:80', {}],
    ['8080:80/tcp', {}],
    ['0:80', { port: 0 }],
    ['0.0.0.0:8080:80/udp', { address: '0.0.0.0', protocol: 'udp' }],
    ['[::1]:8080:80', { address: '::1' }],
    ['8080:10.0.2.20:80', { guestAddress: 0x0a00_0214 }],
    ['127.0.0.2:8080:10.0.2.20:80', { address: '127.0.0.2', guestAddress: 0x0a00_0214 }],
  ])('%s', (text, expected) => {
    expect(parseForward(text)).toEqual({ ...BASE, ...expected });
  });

  it.each([
    ['80', '80: not of the form [ADDRESS:]PORT:GUESTPORT[/udp]'],
    ['host:80:80', 'host:80:80: not of the form [ADDRESS:]PORT:GUESTPORT[/udp]'],
    ['80:80/icmp', '80:80/icmp: not of the form [ADDRESS:]PORT:GUESTPORT[/udp]'],
    ['1.2.3:80:80', '1.2.3:80:80: 1.2.3 is not an address'],
    ['80:1.2.3.256:80', '80:1.2.3.256:80: 1.2.3.256 is not an address'],
    ['99999:80', '99999:80: a port is a number from 1 to 65535'],
    ['80:0', '80:0: a port is a number from 1 to 65535'],
  ])('refuses %s', (text, message) => {
    expect(() => parseForward(text)).toThrow(new ForwardSpecError(message));
  });
});
