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

const FOLDERS = [
  'auth-service',
  'bench',
  'config',
  'console',
  'deploy',
  'docs',
  'examples',
  'findings',
  'fuzz',
  'k8s',
  'load',
  'models',
  'mutation',
  'packages',
  'scripts',
  'src',
  'test',
  'torture',
  'workers',
];

const FILES = [...filesOfTheRoot(), ...FOLDERS.flatMap(filesIn)];
const PAGES = FILES.filter((file) => file.endsWith('.md') && !file.startsWith('fuzz/corpus/'));
const SOURCES = FILES.filter((file) => /\.(tsx?|jsx?|mjs|lua|py|json|ya?ml|env|cfg|sh|qnt|example)$/.test(file));

/** What the commands of the documentation create. */
const CREATED = ['console/dist', 'k8s/overlays/dev/secrets.env'];

/** Secrets of tool servers, agents and model endpoints in examples of configuration files. */
const SECRETS_OF_EXAMPLES = [
  'API_KEY',
  'OPENROUTER_KEY',
  'RESEARCH_KEY',
  'RESEARCH_SECRET',
  'SEARCH_TOKEN',
  'TICKETS_KEY',
];

function filesOfTheRoot(): string[] {
  const entries = readdirSync(PROJECT_ROOT, { withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map(({ name }) => name);
}

function filesIn(folder: string): string[] {
  const entries = readdirSync(join(PROJECT_ROOT, folder), { withFileTypes: true });
  return entries
    .filter(({ name }) => name !== 'node_modules' && name !== 'dist')
    .flatMap((entry) => (entry.isDirectory() ? filesIn(join(folder, entry.name)) : [join(folder, entry.name)]));
}

function read(file: string): string {
  return readFileSync(join(PROJECT_ROOT, file), 'utf8');
}

/** Returns each text that a global pattern matches: its first group, or the whole match. */
function matches(text: string, pattern: RegExp): string[] {
  return [...text.matchAll(pattern)].map(([whole, group]) => group ?? whole);
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

/** Routes that the documentation names and that servers of others have. */
const ROUTES_OF_OTHERS = [
  ['docs/agents.md', '/turn'],
  ['docs/billing.md', '/v2/billing/meter_event_stream'],
  ['docs/billing.md', '/api/v1/events'],
  ['docs/billing.md', '/api/v1/events/batch'],
];

function segments(path: string): string[] {
  return path.replace(/[?#].*$/, '').split('/');
}

/** Tells whether a path is one of a route, whose parameters are `:id`, `{id}` or `*`. */
function isOfRoute(path: readonly string[], route: readonly string[]): boolean {
  if (path.length !== route.length) return false;
  return route.every(
    (segment, index) => /^[:{*$]/.test(segment) || segment === path[index] || /[…{}]/.test(path[index] ?? ''),
  );
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
    const manifests = ['package.json', join(dirname(page), 'package.json')].filter((file) => FILES.includes(file));
    const scripts = manifests.flatMap((file) => {
      return Object.keys((JSON.parse(read(file)) as { scripts?: Record<string, string> }).scripts ?? {});
    });
    const named = matches(read(page), /npm run (?:--?\w+ )*([a-z][\w-]*(?::[\w-]+)*)/g);
    expect(named.filter((name) => !scripts.includes(name))).toEqual([]);
  });

  it.each(PAGES)('%s names only sources that are there', (page) => {
    const named = matches(read(page), /`([\w./-]+\.(?:ts|lua|mjs))`/g);
    expect(named.filter((name) => !FILES.some((file) => `/${file}`.endsWith(`/${name}`)))).toEqual([]);
  });

  it.each(PAGES)('%s names only paths that are there, in full or shortened as for npm test', (page) => {
    const pattern = new RegExp(String.raw`(?<![\w./@-])(?:${FOLDERS.join('|')})/[\w./@-]*\w`, 'g');
    const named = matches(read(page), pattern).filter((path) => !CREATED.includes(path));
    const isThere = (path: string) => FILES.some((file) => file.startsWith(path));
    expect(named.filter((path) => !isThere(path) && !isThere(join(dirname(page), path)))).toEqual([]);
  });

  it('name only variables, codes, metrics and alerts that are in the sources', () => {
    const sources = SOURCES.map(read).join('\n');
    const variable = /[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+/g;
    const metric = /tollgate_[a-z_]+[a-z]/g;
    const alert = /\bTollgate[A-Z][a-z]+[A-Z]\w+/g;
    const known = new Set([variable, metric, alert].flatMap((pattern) => matches(sources, pattern)));
    for (const name of SECRETS_OF_EXAMPLES) known.add(name);
    const all = [...known].join('\n');
    const unknown = PAGES.flatMap((page) => {
      const text = read(page);
      const names = [...matches(text, variable), ...matches(text, alert)].filter((name) => !known.has(name));
      // "tollgate_nodejs_eventloop_lag_*" names several metrics
      return [...names, ...matches(text, metric).filter((name) => !all.includes(name))].map((name) => [page, name]);
    });
    expect(known.size).toBeGreaterThan(500);
    expect(unknown).toEqual([]);
  });

  it('name only HTTP routes that a process of Tollgate serves', () => {
    const served = SOURCES.filter((file) => /^(src|auth-service)\/.*\.ts$/.test(file)).map(read);
    const { paths } = JSON.parse(read('docs/openapi.json')) as { paths: Record<string, object> };
    const routes = [...Object.keys(paths), ...matches(served.join('\n'), /['"`](\/(?!\$)[\w.:/${}*-]*)['"`]/g)].map(
      segments,
    );
    const named = /(?:GET|POST|PUT|DELETE) +(\/[\w.:/{}?=&…-]*)|localhost:80\d\d(\/[\w./?=&…-]*)/g;
    const unknown = PAGES.flatMap((page) => {
      const paths = [...read(page).matchAll(named)].map(([, first, second]) => first ?? second ?? '');
      return paths
        .filter((path) => !routes.some((route) => isOfRoute(segments(path), route)))
        .map((path) => [page, path]);
    });
    expect(routes.length).toBeGreaterThan(80);
    expect(unknown).toEqual(ROUTES_OF_OTHERS);
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
