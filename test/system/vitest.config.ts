import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

/** Tests that boot whole domains through the command line. They run what is in dist: `npm run test:system` builds it. */
export default defineConfig({
  test: {
    root: fileURLToPath(new URL('../..', import.meta.url)),
    include: ['test/system/**/*.test.ts'],
    testTimeout: 240_000,
    hookTimeout: 240_000,
    pool: 'forks',
    // A domain is a busy thread: more than one at a time would only measure each other.
    fileParallelism: false,
  },
});
