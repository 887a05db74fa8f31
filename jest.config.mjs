/**
 * Options of every project. `roots` contains only the tests, so that jest does not crawl node_modules once per project.
 * It resolves imports of other folders from the file system.
 */
const project = (displayName, folders, options = {}) => ({
  displayName,
  testEnvironment: 'node',
  roots: ['<rootDir>/test'],
  testMatch: folders.map((folder) => `<rootDir>/test/${folder}/**/*.test.ts`),
  extensionsToTreatAsEsm: ['.ts'],
  transform: {
    '^.+\\.ts$': [
      '@swc/jest',
      {
        // Jest itself evaluates `with { type: 'json' }`.
        jsc: { target: 'es2024', parser: { syntax: 'typescript' }, experimental: { keepImportAttributes: true } },
        module: { type: 'es6' },
      },
    ],
  },
  // The packages import each other by name.
  moduleNameMapper: { '^@tollgate/client$': '<rootDir>/packages/client/src/main.ts' },
  setupFilesAfterEnv: ['<rootDir>/test/support/close-after-tests.ts'],
  ...options,
});

/**
 * Starts the shared stack. Jest runs a global setup once per distinct path, and only if a test of a project that names
 * it is selected: several projects share one stack, and unit tests alone start none.
 */
const sharedStack = {
  globalSetup: '<rootDir>/test/support/global-setup.ts',
  globalTeardown: '<rootDir>/test/support/global-teardown.ts',
};

/** @type {import('jest').Config} */
export default {
  projects: [
    project('unit', ['unit']),
    project('integration', ['integration', 'attacks'], sharedStack),
    project('faults', ['faults'], sharedStack),
    project('cluster', ['cluster'], sharedStack),
    project('e2e', ['e2e', 'k8s'], sharedStack),
  ],
  reporters: ['default', '<rootDir>/test/support/closing-line-reporter.mjs'],
  // Jest 30 ignores this option in a project.
  testTimeout: 30_000,
  // Many tests wait for leases, deadlines and processes: two workers leave almost half of two cores idle.
  maxWorkers: 3,
  // A run that does not end by itself has left something open. That is a bug and must stay visible.
  forceExit: false,
};
