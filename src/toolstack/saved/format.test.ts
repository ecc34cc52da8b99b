import { createHash } from 'node:crypto';
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RecordReader, RecordWriter, type SavedRecord } from './format.ts';
import { readHead } from './head.ts';

let folder: string;
const path = () => join(folder, 'file');

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'xenolith-format-'));
});

afterAll(() => rm(folder, { recursive: true, force: true }));

async function write(records: readonly SavedRecord[]): Promise<Buffer> {
  const file = await open(path(), 'w');
  const writer = new RecordWriter(file);
  await writer.begin();
  for (const { kind, bytes } of records) await writer.add(kind, bytes);
  await writer.end();
  await file.close();
  return readFile(path());
}

async function readAll(): Promise<SavedRecord[]> {
  const reader = await RecordReader.open(path());
  try {
    const records: SavedRecord[] = [];
    for (let record = await reader.next(); record !== null; record = await reader.next())
      records.push(record);
    return records;
  } finally {
    await reader.close();
  }
}

/** As somebody would write it on purpose: the sum is right. */
const signed = (bytes: Buffer) => {
  const body = bytes.subarray(0, bytes.length - 32);
  return Buffer.concat([body, createHash('sha256').update(body).digest()]);
};

const RECORDS: readonly SavedRecord[] = [
  { kind: 1, bytes: new TextEncoder().encode('{"a":1}') },
  ...Array.from({ length: 9 }, (_, index) => ({
    kind: 2,
    bytes: new Uint8Array(5000 * index).fill(index),
  })),
];

describe('the file of a saved domain', () => {
  it('holds its records, in order', async () => {
    await write(RECORDS);
    const records = await readAll();
    expect(records.map(({ kind }) => kind)).toEqual(RECORDS.map(({ kind }) => kind));
    for (const [index, { bytes }] of records.entries())
      expect(Buffer.compare(bytes, RECORDS[index]!.bytes)).toBe(0);
  });

  it('is refused with any bit changed, and at any other length', async () => {
    const bytes = await write(RECORDS);
    for (let at = 0; at < bytes.length; at += 7) {
      const copy = Buffer.from(bytes);
      copy[at]! ^= 1 << (at & 7);
      await writeFile(path(), copy);
      await expect(readAll(), `byte ${at}`).rejects.toMatchObject({ code: 'invalid' });
    }
    for (let length = 0; length < bytes.length; length += 5) {
      await writeFile(path(), bytes.subarray(0, length));
      await expect(readAll(), `length ${length}`).rejects.toMatchObject({ code: 'invalid' });
    }
    await writeFile(path(), Buffer.concat([bytes, Buffer.alloc(1)]));
    await expect(readAll()).rejects.toMatchObject({ code: 'invalid' });
  });

  it('written to deceive is refused, too', async () => {
    const bytes = await write(RECORDS);
    const record = 24;
    const change = async (at: number, value: number) => {
      const copy = Buffer.from(bytes);
      copy.writeUInt32LE(value, at);
      await writeFile(path(), signed(copy));
      await expect(readAll()).rejects.toThrow(/is not a saved domain/);
    };
    await change(record + 4, 0xffff_fff0);
    await change(record + 4, 3);
    await change(record + 8, 0xffff_fff0);
    await change(record + 8, 1);
    await change(record + 12, 0x1234_5678);
  });

  it('has a head that says what it should', async () => {
    for (const text of ['', 'nothing', '[]', '{"a":1}', '{"xenolith":1}']) {
      await write([{ kind: 1, bytes: new TextEncoder().encode(text) }]);
      const reader = await RecordReader.open(path());
      await expect(readHead(reader), text).rejects.toThrow(/is not a saved domain: [^\n]*$/);
      await reader.close();
    }
  });
});
