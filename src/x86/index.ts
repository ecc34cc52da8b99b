/** The processor, for the layers above. */
export { createProcessor } from './core/index.ts';
export { Cpu, hex64, high32, join64, type VirtualAddress } from './cpu.ts';
export { Access, type PhysicalSpace, type Processor, type ProcessorHost } from './processor.ts';
export * from './state.ts';
