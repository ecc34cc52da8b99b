import { ImageError } from '../error.ts';
/** stub */
export async function flattenContainer(_a: string, _b: string, _c: string): Promise<void> {
  throw new ImageError('not yet');
}
