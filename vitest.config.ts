import { configDefaults, defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['src/**/*.test.ts', 'test/**/*.test.ts'],
    // These boot whole domains: test/system/vitest.config.ts runs them (`npm run test:system`).
    exclude: [...configDefaults.exclude, 'test/system/**'],
    testTimeout: 60_000,
    pool: 'forks',
  },
});
