import fs from 'node:fs';
import { registerHooks, syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { PROJECT_ROOT } from '../scripts/lib/processes.ts';
import { executedCode } from './lib/executed-code.ts';
import { runDeclared } from './lib/jest-globals.ts';
import type { TestRequest, TestResult } from './lib/test-process.ts';

/**
 * Runs test files with one mutant, for its parent process. Each request loads the modules of the project anew, because
 * they keep state and read scripts when they load. Packages stay loaded. The mutant exists in memory only.
 */
const JEST_GLOBALS = new URL('./lib/jest-globals.ts', import.meta.url).href;
const PACKAGES = '/node_modules/';
const root = pathToFileURL(`${PROJECT_ROOT}/`).href;
const own = new URL('.', import.meta.url).href;
let generation = 0;
let mutated: { readonly path: string; readonly source: string } | undefined;

registerHooks({
  resolve(specifier, context, next) {
    if (specifier === '@jest/globals') return { url: JEST_GLOBALS, shortCircuit: true };
    const resolved = next(specifier, context);
    const { url } = resolved;
    const isOfProject = url.startsWith(root) && !url.startsWith(own) && !url.includes(PACKAGES);
    return isOfProject ? { ...resolved, url: `${url.split('?')[0]}?generation=${generation}` } : resolved;
  },
  load(url, context, next) {
    if (!mutated || !url.startsWith('file:') || fileURLToPath(url) !== mutated.path) return next(url, context);
    return { format: 'module-typescript', source: mutated.source, shortCircuit: true };
  },
});

// Scripts are read as files.
const { readFileSync } = fs;
Reflect.set(fs, 'readFileSync', (path: fs.PathOrFileDescriptor, options: never) => {
  const isMutated = mutated && path instanceof URL && fileURLToPath(path) === mutated.path;
  return isMutated ? mutated?.source : readFileSync(path, options);
});
syncBuiltinESMExports();

process.setMaxListeners(0);

let stray: unknown;
process.on('uncaughtException', (error) => {
  stray ??= error;
});

async function runTests({ tests, mutant }: TestRequest): Promise<TestResult> {
  mutated = mutant && { path: join(PROJECT_ROOT, mutant.file), source: mutant.source };
  generation += 1;
  for (const test of tests) {
    stray = undefined;
    try {
      const failure = await runDeclared(async () => {
        await load('test/support/close-after-tests.ts');
        await load(test);
      });
      if (failure !== undefined) return { failed: test, failure };
    } catch (error) {
      return { failed: test, failure: `the file does not load: ${error}` };
    }
    if (stray !== undefined) return { failed: test, failure: `uncaught: ${stray}` };
  }
  return {};
}

function load(file: string): Promise<unknown> {
  return import(`${pathToFileURL(join(PROJECT_ROOT, file)).href}?generation=${generation}`);
}

/** Runs tests, and also returns which code of the modules of this request they execute. */
async function runMeasured(request: TestRequest): Promise<TestResult> {
  let result: TestResult = {};
  const ofRequest = `?generation=${generation + 1}`;
  const executed = await executedCode(
    async () => {
      result = await runTests(request);
    },
    (url) => url.startsWith(`${root}src/`) && url.endsWith(ofRequest),
  );
  return { ...result, executed };
}

process.on('message', (request: TestRequest) => {
  const result = request.isMeasured ? runMeasured(request) : runTests(request);
  void result.then((sent) => process.send?.(sent));
});
process.on('disconnect', () => process.exit());
