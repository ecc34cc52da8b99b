export * from './expr.ts';
export * from './func.ts';
export * from './module.ts';
