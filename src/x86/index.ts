/** The processor, for the layers above. */
export {
  ACTIVITY,
  ActivityBoard,
  type ActivitySample,
  DETAIL,
  hypercallActivity,
  PHASE,
} from './core/activity.ts';
export { createProcessor, type ProcessorOptions } from './core/index.ts';
export { TranslationCounts } from './core/translations.ts';
export { VerifyLog } from './core/verify.ts';
export { Cpu, hex64, high32, join64, type VirtualAddress } from './cpu.ts';
export { Access, type PhysicalSpace, type Processor, type ProcessorHost } from './processor.ts';
export * from './state.ts';
export { mergeRegions } from './translator/build.ts';
export {
  type CompileJob,
  Compiler,
  KNOWN_REGIONS,
  LOADED,
  type LoadedResult,
  type RegionCompiler,
  STORED,
  type StoredRegion,
  type StoredResult,
} from './translator/compile.ts';
