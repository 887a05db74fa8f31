/**
 * What tests import from `@jest/globals`, for a process that runs the same test files again and again: Jest needs 1.5 s
 * of CPU time for the start and the modules of each run. The assertions and spies are Jest's own.
 */
import { ModuleMocker } from 'jest-mock';

export { expect } from 'expect';
export const jest = new ModuleMocker(globalThis);

type Body = (...args: never[]) => unknown;

interface Test {
  readonly name: string;
  readonly body: () => unknown;
  readonly timeoutMs: number;
}

interface Suite {
  readonly name: string;
  readonly entries: (Suite | Test)[];
  readonly hooks: Readonly<Record<HookName, (() => unknown)[]>>;
}

type HookName = 'beforeAll' | 'beforeEach' | 'afterEach' | 'afterAll';

const TEST_TIMEOUT_MS = 30_000;
let current = newSuite('');

function newSuite(name: string): Suite {
  return { name, entries: [], hooks: { beforeAll: [], beforeEach: [], afterEach: [], afterAll: [] } };
}

export const beforeAll = hook('beforeAll');
export const beforeEach = hook('beforeEach');
export const afterEach = hook('afterEach');
export const afterAll = hook('afterAll');

function hook(name: HookName) {
  return (body: () => unknown) => void current.hooks[name].push(body);
}

function addSuite(name: string, body: Body, args: readonly unknown[] = []): void {
  const [parent, suite] = [current, newSuite(name)];
  parent.entries.push(suite);
  current = suite;
  call(body, args);
  current = parent;
}

function addTest(name: string, body: Body, timeoutMs = TEST_TIMEOUT_MS, args: readonly unknown[] = []): void {
  current.entries.push({ name, body: () => call(body, args), timeoutMs });
}

function call(body: Body, args: readonly unknown[]): unknown {
  return Reflect.apply(body, undefined, [...args]);
}

/** `each` for tables that are arrays. As in Jest, rows become several arguments if every row is an array. */
function each(add: (name: string, body: Body, timeoutMs: number | undefined, args: readonly unknown[]) => void) {
  return (rows: readonly unknown[]) => (name: string, body: Body, timeoutMs?: number) => {
    const isTable = rows.every((row): row is readonly unknown[] => Array.isArray(row));
    const table = isTable ? rows : rows.map((row) => [row]);
    for (const [at, row] of table.entries()) add(`${name} [${at}]`, body, timeoutMs, row);
  };
}

const skip = () => {};
export const describe = Object.assign(addSuite, {
  each: each((name, body, _timeoutMs, args) => addSuite(name, body, args)),
  skip,
});
export const it = Object.assign(addTest, { each: each(addTest), skip });
export const test = it;

/**
 * Runs what `declare` declares, in order, until the first failure.
 * @returns the failed test with its error; undefined if all pass
 * @throws an error of `declare`
 */
export async function runDeclared(declare: () => Promise<unknown>): Promise<string | undefined> {
  const root = newSuite('');
  current = root;
  await declare();
  try {
    await runSuite(root, []);
    return undefined;
  } catch (error) {
    return String(error instanceof Error ? error.message : error);
  }
}

async function runSuite(suite: Suite, parents: readonly Suite[]): Promise<void> {
  const chain = [...parents, suite];
  try {
    for (const body of suite.hooks.beforeAll) await bounded(body, TEST_TIMEOUT_MS, `${suite.name}: beforeAll`);
    for (const entry of suite.entries) await ('entries' in entry ? runSuite(entry, chain) : runTest(entry, chain));
  } finally {
    for (const body of suite.hooks.afterAll) await bounded(body, TEST_TIMEOUT_MS, `${suite.name}: afterAll`);
  }
}

async function runTest({ name, body, timeoutMs }: Test, chain: readonly Suite[]): Promise<void> {
  try {
    for (const before of chain.flatMap(({ hooks }) => hooks.beforeEach)) await bounded(before, timeoutMs, name);
    await bounded(body, timeoutMs, name);
  } finally {
    for (const after of chain.toReversed().flatMap(({ hooks }) => hooks.afterEach))
      await bounded(after, timeoutMs, name);
  }
}

async function bounded(body: () => unknown, timeoutMs: number, name: string): Promise<void> {
  const timeout = Promise.withResolvers<never>();
  const timer = setTimeout(() => timeout.reject(new Error(`no end after ${timeoutMs} ms`)), timeoutMs);
  try {
    await Promise.race([Promise.resolve().then(body), timeout.promise]);
  } catch (error) {
    throw new Error(`${name}: ${error instanceof Error ? error.message : error}`, { cause: error });
  } finally {
    clearTimeout(timer);
  }
}
