/** Disks behind an HTTP address, by range requests. */
import { RangeCache } from '../../dom0/block/range-cache.ts';
import { DiskError } from '../../dom0/block/source.ts';

/** Tries of a request, and how long one may take, ms. */
const TRIES = 4;
const TIMEOUT = 30_000;
const FIRST_PAUSE = 200;

/** The server does not have what it had: asking again does not help. */
class Final extends DiskError {}

/**
 * A medium at an address. Nothing is fetched before it is read; if what is there changes meanwhile, reading fails.
 * @throws DiskError
 */
export async function openAddress(address: string): Promise<RangeCache> {
  const { size, validator } = await retry(address, () => probe(address));
  const fetchRange = (offset: number, length: number) =>
    retry(address, () => fetchPart(address, offset, length, validator));
  return new RangeCache(fetchRange, { name: address, size });
}

/** What identifies a version of the resource, as the server tells it. */
type Validator = string | null;

const validatorOf = (headers: Headers): Validator => headers.get('etag') ?? headers.get('last-modified');

async function probe(address: string): Promise<{ size: number; validator: Validator }> {
  // One byte tells the size, and whether the server does ranges at all: not all of them say so in answer to HEAD.
  const response = await ask(address, { range: 'bytes=0-0' });
  await response.body?.cancel();
  if (response.status !== 206) throw new Final(`${address}: the server does not send parts of it`);
  const match = /^bytes 0-0\/(\d{1,15})$/.exec(response.headers.get('content-range') ?? '');
  if (!match) throw new Final(`${address}: the server does not tell its size`);
  return { size: Number(match[1]), validator: validatorOf(response.headers) };
}

async function fetchPart(
  address: string,
  offset: number,
  length: number,
  validator: Validator,
): Promise<Uint8Array> {
  const response = await ask(address, { range: `bytes=${offset}-${offset + length - 1}` });
  if (response.status !== 206 || validatorOf(response.headers) !== validator) {
    await response.body?.cancel();
    throw new Final(`${address}: has changed`);
  }
  const bytes = new Uint8Array(length);
  let at = 0;
  for await (const chunk of response.body!) {
    if (at + chunk.length > length) throw new Final(`${address}: more was sent than asked for`);
    bytes.set(chunk, at);
    at += chunk.length;
  }
  if (at < length) throw new DiskError(`${address}: the connection was cut`);
  return bytes;
}

async function ask(address: string, headers: Record<string, string>): Promise<Response> {
  let response: Response;
  try {
    // What is compressed on the way has no parts.
    const all = { ...headers, 'accept-encoding': 'identity' };
    response = await fetch(address, { headers: all, signal: AbortSignal.timeout(TIMEOUT) });
  } catch (error) {
    const { cause, message } = error as Error;
    throw new DiskError(`${address}: ${cause instanceof Error ? cause.message : message}`);
  }
  if (response.ok) return response;
  await response.body?.cancel();
  const text = `${address}: ${response.status} ${response.statusText}`;
  throw response.status >= 500 || response.status === 429 ? new DiskError(text) : new Final(text);
}

/** Tries again what may go better the next time. */
async function retry<T>(address: string, work: () => Promise<T>): Promise<T> {
  let pause = FIRST_PAUSE;
  for (let attempt = 1; ; attempt++, pause *= 2) {
    try {
      return await work();
    } catch (error) {
      if (error instanceof Final || attempt === TRIES)
        throw error instanceof DiskError ? error : new DiskError(`${address}: ${(error as Error).message}`);
    }
    await new Promise((resolve) => {
      setTimeout(resolve, pause);
    });
  }
}
