import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from '@jest/globals';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import {
  CLIENT_MESSAGE_NAMES,
  clientMessageType,
  DURABLE_EVENTS,
  TRANSIENT_EVENTS,
} from '../../src/protocol/messages.ts';

const PAGES = ['README.md', 'CHANGELOG.md', 'CONTRIBUTING.md', 'SECURITY.md', 'k8s/README.md', ...markdownIn('docs')];

const SOURCES = [
  'src',
  'workers',
  'auth-service',
  'scripts',
  'test',
  'bench',
  'load',
  'torture',
  'mutation',
  'console',
].flatMap(filesIn);

function filesIn(folder: string): string[] {
  const files = readdirSync(join(PROJECT_ROOT, folder), { recursive: true, encoding: 'utf8' });
  return files.filter((file) => !file.includes('node_modules')).map((file) => join(folder, file));
}

function markdownIn(folder: string): string[] {
  return filesIn(folder).filter((file) => file.endsWith('.md'));
}

function read(file: string): string {
  return readFileSync(join(PROJECT_ROOT, file), 'utf8');
}

/** Returns the anchor of each heading, in GitHub's form. */
function anchorsOf(page: string): string[] {
  const prose = read(page).replaceAll(/^```[\s\S]*?^```/gm, '');
  return [...prose.matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) => {
    return heading
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
      .replaceAll(' ', '-');
  });
}

/** Returns the cells of the first column of a table, each with its names. */
function firstColumn(page: string, heading: string): string[][] {
  const section = read(page).split(`\n## ${heading}\n`)[1]?.split(/\n##/, 1)[0] ?? '';
  const rows = [...section.matchAll(/^\| (`[^|]+) \|/gm)];
  return rows.map(([, cell = '']) => [...cell.matchAll(/`(\w+)`/g)].map(([, name = '']) => name));
}

describe('the documents', () => {
  it.each(PAGES)('%s links to files and headings that are there', (page) => {
    const links = [...read(page).matchAll(/\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)/g)];
    const dead = links.filter(([, path = '', anchor]) => {
      const target = path === '' ? page : join(dirname(page), path);
      if (!existsSync(join(PROJECT_ROOT, target))) return true;
      return anchor !== undefined && !anchorsOf(target).includes(anchor);
    });
    expect(dead.map(([link]) => link)).toEqual([]);
  });

  it.each(PAGES)('%s names only npm scripts that are there', (page) => {
    const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
    const named = [...read(page).matchAll(/npm run ([a-z][\w-]*(?::[\w-]+)*)/g)].map(([, name = '']) => name);
    expect(named.filter((name) => !(name in scripts))).toEqual([]);
  });

  it.each(PAGES)('%s names only sources that are there', (page) => {
    const named = [...read(page).matchAll(/`([\w./-]+\.(?:ts|lua|mjs))`/g)].map(([, name = '']) => name);
    expect(named.filter((name) => !SOURCES.some((file) => `/${file}`.endsWith(`/${name}`)))).toEqual([]);
  });

  it('docs/protocol.md has a row for exactly the messages of clients, under all of their names', () => {
    const rows = firstColumn('docs/protocol.md', 'Client to server');
    expect(rows.flat().toSorted()).toEqual(CLIENT_MESSAGE_NAMES.toSorted());
    for (const [type, ...aliases] of rows) {
      expect(aliases.map((alias) => clientMessageType(alias))).toEqual(aliases.map(() => type));
    }
  });

  it('docs/protocol.md names every event that a client may get', () => {
    const page = read('docs/protocol.md');
    const unnamed = [...DURABLE_EVENTS, ...TRANSIENT_EVENTS].filter((type) => !new RegExp(`\`${type}\\b`).test(page));
    expect(unnamed).toEqual([]);
  });

  it('docs/operations.md has every field of plans, permissions and tools', () => {
    const { plans } = JSON.parse(read('config/plans.json')) as { plans: Record<string, object> };
    const { permissions, tools } = JSON.parse(read('config/tools.json')) as {
      permissions: Record<string, object>;
      tools: object[];
    };
    const rows = [...Object.values(plans), ...Object.values(permissions), ...tools];
    const fields = new Set(rows.flatMap((row) => Object.keys(row)));
    const table = [...read('docs/operations.md').matchAll(/^\| (`[^|]+) \|/gm)].map(([, cell]) => cell).join();
    expect([...fields].filter((field) => !table.includes(`\`${field}\``))).toEqual([]);
  });

  it('docs/operations.md names every metric of ours', async () => {
    const page = read('docs/operations.md');
    const metrics = await new Metrics().registry.getMetricsAsJSON();
    const ours = metrics.map(({ name }) => name).filter((name) => !/^tollgate_(nodejs|process)_/.test(name));
    expect(ours.length).toBeGreaterThan(40);
    expect(ours.filter((name) => !new RegExp(`\`${name}\\b`).test(page))).toEqual([]);
  });
});
