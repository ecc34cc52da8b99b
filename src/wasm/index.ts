export { sameBytes } from './bytes.ts';
export * from './expr.ts';
export * from './func.ts';
export { mergeModules } from './merge.ts';
export * from './module.ts';
