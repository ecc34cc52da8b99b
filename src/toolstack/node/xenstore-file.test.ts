import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { XenstoreClient } from '../../dom0/xenstore/client.ts';
import { Xenstore } from '../../dom0/xenstore/xenstore.ts';
import { XenstoreFile } from './xenstore-file.ts';

let folder: string;
let path: string;
let said: string[];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'xenstore-file-'));
  path = join(folder, 'store.json');
  said = [];
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const begin = () => {
  const store = new Xenstore();
  const file = new XenstoreFile(path, store, (line) => said.push(line));
  return { file, dom0: new XenstoreClient(store) };
};
const until = async (there: () => boolean) => {
  for (let tries = 0; !there(); tries++) {
    if (tries > 500) throw new Error('not in time');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
};
const says = (text: string) => existsSync(path) && readFileSync(path, 'utf8').includes(text);

describe('a store in a file', () => {
  it('is there again, also after a daemon that was killed', async () => {
    const first = begin();
    first.dom0.write('/tool/mine', 'kept');
    // Nobody closes it: what there is is written anyway.
    await until(() => says('kept'));
    const second = begin();
    expect(second.dom0.read('/tool/mine')).toBe('kept');
    second.dom0.write('/tool/mine', 'changed');
    second.dom0.remove('/tool/xenstored');
    await second.file.close();
    const third = begin();
    expect(third.dom0.read('/tool/mine')).toBe('changed');
    await third.file.close();
    expect(said).toEqual([]);
  });

  it('is not written for what passes', async () => {
    const { file, dom0 } = begin();
    dom0.write('/local/domain/7/data', 'x');
    await new Promise((resolve) => setTimeout(resolve, 30));
    expect(existsSync(path)).toBe(false);
    await file.close();
  });

  it('takes many changes', async () => {
    const { file, dom0 } = begin();
    for (let round = 0; round < 20; round++) {
      dom0.write(`/tool/n${round}`, 'x');
      if (round % 5 === 0) await new Promise((resolve) => setTimeout(resolve, 3));
    }
    await file.close();
    expect(begin().dom0.list('/tool')).toHaveLength(21);
  });

  it('that is damaged is put aside', () => {
    writeFileSync(path, '{"version":1,"nod');
    const { dom0 } = begin();
    expect(dom0.list('/tool')).toEqual(['xenstored']);
    expect(said).toEqual([expect.stringMatching(/store\.json: .* kept as .*damaged/)]);
    expect(readFileSync(`${path}.damaged`, 'utf8')).toBe('{"version":1,"nod');
  });

  it('that cannot be written is told', async () => {
    const { file, dom0 } = begin();
    rmSync(folder, { recursive: true });
    dom0.write('/a', 'b');
    await file.close();
    expect(said[0]).toMatch(/ENOENT/);
  });
});
