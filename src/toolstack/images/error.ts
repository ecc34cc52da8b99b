/** An image cannot be had. The message says why, and where there is one, the command that helps. */
export class ImageError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'ImageError';
  }
}
