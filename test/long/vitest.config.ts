import { defineConfig } from 'vitest/config';

/** Suites of many minutes: `npm run test:long`, or one of them. */
export default defineConfig({
  test: {
    include: ['test/long/*.test.ts'],
    testTimeout: 3_600_000,
    hookTimeout: 3_600_000,
    maxWorkers: 1,
    fileParallelism: false,
  },
});
