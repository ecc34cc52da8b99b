/** Guest images: kernels and an initramfs out of Debian's packages, kept in a cache. */
export { Cache, defaultCacheDirectory } from './cache.ts';
export { ImageError } from './error.ts';
export { type ExtraFile, shellInitramfs } from './initramfs.ts';
export { fetchKernel, KERNEL_NAMES, type KernelFiles, type KernelName, unpackedKernel } from './kernels.ts';
export type { ImageOptions } from './package-files.ts';
export { type Progress, progressOn, SILENT } from './progress.ts';
