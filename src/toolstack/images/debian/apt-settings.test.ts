import { describe, expect, it } from 'vitest';
import { readOptions, readSources } from './apt-settings.ts';

describe('the sources of a guest', () => {
  it('are Debian’s, for the release that this machine has', () => {
    const targets = [
      'http://one/debian/ bookworm main',
      'http://one/debian/ bookworm contrib',
      'http://one/debian/ bookworm main',
      'http://one/debian/ bookworm-updates main',
      'http://one/debian/ trixie main',
      'http://one/security/ bookworm-security main',
      '',
    ].join('\n');
    expect(readSources(targets)).toEqual({
      suite: 'bookworm',
      sources: [
        'deb http://one/debian/ bookworm main contrib',
        'deb http://one/debian/ bookworm-updates main',
        'deb http://one/security/ bookworm-security main',
      ],
    });
  });

  it('cannot be had where apt has no lists', () => {
    expect(() => readSources('')).toThrow(/apt-get update/);
  });
});

describe('what apt is told', () => {
  it('goes along if it is about the way to the archive', () => {
    const dump = [
      'APT::Architecture amd64',
      'Acquire::http::Proxy http://proxy:3128',
      'Acquire::https::Proxy http://localhost:8080/',
      'Acquire::Check-Valid-Until false',
      'Acquire::http::Proxy-Auto-Detect /bin/x',
      'Acquire::ftp::Proxy a"; Dir "/x',
      'Acquire::Languages ',
    ].join('\n');
    expect(readOptions(dump, { https_proxy: 'http://other:1', http_proxy: 'http://weaker:1' })).toEqual({
      options: ['Acquire::http::Proxy "http://proxy:3128";', 'Acquire::Check-Valid-Until "false";'],
      unreachable: ['http://localhost:8080/'],
    });
  });

  it('is the environment’s proxy where apt has none of its own', () => {
    expect(readOptions('', { http_proxy: 'http://proxy:1' }).options).toEqual([
      'Acquire::http::Proxy "http://proxy:1";',
    ]);
  });
});
