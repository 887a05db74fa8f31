import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { type CatalogueSources, Catalogues } from '../../src/catalogue/catalogues.ts';
import { closeAfter, type Lifetime } from './open-resources.ts';

type Json = Readonly<Record<string, unknown>>;

/** The catalogue files of the repository. */
export const planFile = readJson('plans.json') as { default: string; plans: Record<string, Json> };
export const toolFile = readJson('tools.json') as { permissions: Record<string, Json>; tools: Json[] };

/** Returns a row of tools.json with all required fields. */
export function toolRow(row: { readonly name: string; readonly [field: string]: unknown }): Json {
  const open = { type: 'object' };
  return { description: row.name, permission: 'basic', executor: 'builtin', units: 1, arguments: open, ...row };
}

/** Returns a row of plans.json that grants everything. */
export function planRow(row: Json = {}): Json {
  const all = { permissions: ['*'], feature_flags: ['*'], threads: null, allowances: {}, concurrency: 1_000 };
  const hourly = { runs_per_hour: 1_000_000, idempotency_keys_per_hour: 1_000_000 };
  return { rank: 0, multiplier: 1, ...all, ...hourly, ...row };
}

/** Writes catalogue files for one test; strings are written unchanged. */
export function catalogueFiles(
  {
    plans = planFile,
    tools = toolsFor(plans),
    servers,
  }: { readonly plans?: unknown; readonly tools?: unknown; readonly servers?: unknown },
  lifetime: Lifetime = 'test',
): CatalogueSources {
  const folder = mkdtempSync(join(tmpdir(), 'tollgate-catalogues-'));
  closeAfter(lifetime, () => rmSync(folder, { recursive: true }));
  const write = (name: string, content: unknown) => {
    const path = join(folder, name);
    writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content, undefined, 2));
    return pathToFileURL(path);
  };
  return {
    plans: write('plans.json', plans),
    tools: write('tools.json', tools),
    servers: servers === undefined ? undefined : write('tool-servers.json', servers),
  };
}

/** Writes files to a folder of its own, for `CATALOGUE_DIR`. */
export function catalogueFolder(files: Readonly<Record<string, unknown>>, lifetime: Lifetime = 'test'): string {
  const folder = mkdtempSync(join(tmpdir(), 'tollgate-catalogues-'));
  closeAfter(lifetime, () => rmSync(folder, { recursive: true }));
  for (const [name, content] of Object.entries(files)) writeFileSync(join(folder, name), JSON.stringify(content));
  return folder;
}

/** Loads catalogues with these tools and plans, beside the product's permissions. */
export function catalogues(
  rows: { readonly tools?: readonly Json[]; readonly plans?: Readonly<Record<string, object>> },
  lifetime: Lifetime = 'test',
): Catalogues {
  const [first = ''] = Object.keys(rows.plans ?? {});
  const plans = rows.plans
    ? { default: first, plans: rows.plans }
    : { ...planFile, plans: withoutAllowances(rows.tools) };
  const tools = { ...toolsFor(plans), ...(rows.tools ? { tools: rows.tools } : {}) };
  return new Catalogues(catalogueFiles({ plans, tools }, lifetime));
}

/** Returns the product's plans without allowances of missing tools. */
function withoutAllowances(tools: readonly Json[] | undefined): Record<string, Json> {
  if (!tools) return planFile.plans;
  return Object.fromEntries(Object.entries(planFile.plans).map(([name, row]) => [name, { ...row, allowances: {} }]));
}

/** Returns the product's tools. Permissions of missing plans go to the plan that grants everything. */
function toolsFor(plans: unknown) {
  if (plans === planFile || typeof plans !== 'object' || plans === null || !('plans' in plans)) return toolFile;
  const known = Object.keys(plans.plans as object);
  const open = Object.entries(toolFile.permissions).map(([name, { held_by, ...row }]) => {
    const stands = held_by && (held_by as { plans: string[] }).plans.every((plan) => known.includes(plan));
    return [name, stands ? { ...row, held_by } : row];
  });
  return { ...toolFile, permissions: Object.fromEntries(open) as Record<string, Json> };
}

function readJson(name: string): unknown {
  return JSON.parse(readFileSync(new URL(`../../config/${name}`, import.meta.url), 'utf8'));
}
