import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, posix, relative } from 'node:path';
import { parseSync } from '@swc/core';

/** Which part of the code may import which. A part may always import itself. */
const LEAVES = ['src/lib', 'src/protocol'];
const INFRASTRUCTURE = [...LEAVES, 'src/config.ts', 'src/jobs.ts', 'src/redis'];
const EVERYTHING_IN_SRC = ['src'];
/** Composition shared by gateways and workers. */
const SHARED_COMPOSITION = [
  'src/compose/agent.ts',
  'src/compose/catalogues.ts',
  'src/compose/event-log.ts',
  'src/compose/identity-providers.ts',
  'src/compose/tools.ts',
];

const DIRECTIONS: Readonly<Record<string, readonly string[]>> = {
  'src/lib': [],
  'src/protocol': [],
  'src/config.ts': LEAVES,
  'src/jobs.ts': LEAVES,
  'src/redis': [...LEAVES, 'src/config.ts'],
  // Shared by the entry files of all processes.
  'src/process.ts': [...LEAVES, 'src/config.ts'],
  'src/telemetry': [...LEAVES, 'src/config.ts'],
  // Container engines run it beside a process. It uses only the address of that process.
  'src/healthcheck.ts': [],
  // Free of Redis, so its tests need no server.
  'src/catalogue': [...LEAVES, 'src/config.ts'],
  'src/auth': [...INFRASTRUCTURE, 'src/catalogue/catalogue-file.ts'],
  'src/events': INFRASTRUCTURE,
  'src/usage': INFRASTRUCTURE,
  'src/figures': INFRASTRUCTURE,
  'src/limits': [...INFRASTRUCTURE, 'src/catalogue'],
  'src/accounts': [...INFRASTRUCTURE, 'src/catalogue'],
  'src/upstreams': [...INFRASTRUCTURE, 'src/catalogue'],
  'src/cluster': [...INFRASTRUCTURE, 'src/catalogue', 'src/events'],
  'src/threads': [...INFRASTRUCTURE, 'src/catalogue', 'src/events'],
  'src/tools': [
    ...INFRASTRUCTURE,
    'src/catalogue',
    'src/limits',
    'src/events',
    'src/usage',
    'src/threads',
    'src/upstreams',
  ],
  'src/runs': [...INFRASTRUCTURE, 'src/catalogue', 'src/limits', 'src/events', 'src/usage', 'src/threads', 'src/tools'],
  'src/agents': [...INFRASTRUCTURE, 'src/catalogue', 'src/threads', 'src/tools', 'src/runs'],
  'src/connections': [
    ...INFRASTRUCTURE,
    'src/catalogue',
    'src/limits',
    'src/accounts',
    'src/auth',
    'src/events',
    'src/cluster',
    // The request of a tool call, and the port of all transports to the tools.
    'src/tools/tool-call.ts',
  ],
  'src/mcp': [...INFRASTRUCTURE, 'src/catalogue', 'src/limits', 'src/upstreams', 'src/tools', 'src/connections'],
  'src/transports': [...INFRASTRUCTURE, 'src/limits', 'src/auth', 'src/connections'],
  'src/http': [
    ...INFRASTRUCTURE,
    'src/catalogue',
    'src/limits',
    'src/accounts',
    'src/auth',
    'src/events',
    'src/usage',
    'src/cluster',
    'src/mcp',
  ],
  'src/admin': [
    ...INFRASTRUCTURE,
    'src/catalogue',
    'src/limits',
    'src/accounts',
    'src/auth',
    'src/events',
    'src/usage',
    'src/cluster',
    'src/figures',
    'src/threads',
    'src/tools',
    'src/runs',
    'src/http',
  ],
  'src/frontends': [
    ...INFRASTRUCTURE,
    'src/catalogue',
    'src/limits',
    'src/accounts',
    'src/auth',
    'src/events',
    'src/mcp',
    'src/connections',
    'src/transports',
    'src/http',
    // The request of a tool call, and the port of all transports to the tools.
    'src/tools/tool-call.ts',
  ],
  // The Fastify instance and its limits, used by every process.
  'src/http/app.ts': LEAVES,
  // Also part of the reference auth service, which uses no other part of a gateway's authentication.
  'src/auth/access-token-rules.ts': ['src/lib'],
  'src/compose': EVERYTHING_IN_SRC,
  'src/main.ts': EVERYTHING_IN_SRC,
  'src/doctor': EVERYTHING_IN_SRC,
  'src/renew-epochs.ts': [...INFRASTRUCTURE, 'src/events'],
  'auth-service': [
    ...INFRASTRUCTURE,
    'src/process.ts',
    'src/catalogue',
    'src/accounts',
    'src/http',
    'src/auth/access-token-rules.ts',
  ],
  workers: [
    ...INFRASTRUCTURE,
    ...SHARED_COMPOSITION,
    'src/process.ts',
    'src/telemetry',
    'src/catalogue',
    'src/cluster',
    'src/figures',
    'src/accounts',
    'src/auth',
    'src/events',
    'src/usage',
    'src/tools',
    'src/runs',
    'src/http/app.ts',
  ],
  // Published alone, so it imports nothing of the gateway.
  'packages/client': [],
  // It imports the client by its package name.
  'packages/react': [],
  scripts: [...EVERYTHING_IN_SRC, 'packages/client'],
  // Load runs against remote deployments, so it may use the protocol but no internals.
  load: [...LEAVES, 'scripts', 'packages/client'],
  // Drives real processes with the helpers of the tests; its checker imports nothing but the history.
  torture: [...LEAVES, 'packages/client', 'scripts', 'load', 'test/support'],
  // Changes sources in memory and runs tests with them.
  mutation: ['src/redis/scripts.ts', 'scripts', 'bench/lib'],
  // Runs the parsers of `src` in its own process, without a server.
  fuzz: [...EVERYTHING_IN_SRC, 'scripts', 'auth-service'],
  // It imports the client by its package name.
  'console/src': [],
  bench: [...EVERYTHING_IN_SRC, 'workers', 'auth-service', 'scripts'],
  test: [
    'src',
    'workers',
    'auth-service',
    'packages',
    'scripts',
    'console',
    'bench',
    'load',
    'torture',
    'mutation',
    'fuzz',
  ],
};

/** Folders whose imports are checked. */
const FOLDERS = [
  'src',
  'workers',
  'auth-service',
  'packages/client/src',
  'packages/react/src',
  'test',
  'scripts',
  'bench',
  'load',
  'torture',
  'mutation',
  'fuzz',
  'console/src',
];
const SOURCE = /\.(tsx?|mjs)$/;
/** A longer file causes a warning, and above `MAX_LINES` a violation. A file has its natural size. */
export const LONG_FILE_LINES = 400;
const MAX_LINES = 500;
/** Tests may be longer: a long list of cases is easier to read in one piece. */
const FOLDERS_WITH_BOUNDED_FILES = [
  'src',
  'workers',
  'auth-service',
  'packages',
  'scripts',
  'bench',
  'load',
  'torture',
  'mutation',
  'fuzz',
  'console',
];

export interface SourceFile {
  /** Relative to the project, with forward slashes. */
  readonly path: string;
  readonly text: string;
}

export function readSources(root: string): SourceFile[] {
  return (
    FOLDERS.flatMap((folder) => readdirSync(join(root, folder), { recursive: true, withFileTypes: true }))
      .filter((entry) => entry.isFile() && SOURCE.test(entry.name))
      // `mutation` has its own packages.
      .filter((entry) => !entry.parentPath.includes('node_modules'))
      .map((entry) => join(entry.parentPath, entry.name))
      .map((file) => ({ path: relative(root, file).replaceAll('\\', '/'), text: readFileSync(file, 'utf8') }))
  );
}

/** Returns one sentence per violation. */
export function findViolations(sources: readonly SourceFile[]): string[] {
  const imports = new Map(sources.map((source) => [source.path, importsOf(source)]));
  return [
    ...sources.flatMap(({ path, text }) => shapeViolations(path, text)),
    ...[...imports].flatMap(([path, targets]) => targets.flatMap((target) => directionViolation(path, target))),
    ...findCycles(imports).map((cycle) => `${cycle.join(' → ')}: an import cycle`),
  ];
}

/** Returns the files outside the tests with more than `LONG_FILE_LINES` lines: a warning, not a violation. */
export function longFiles(sources: readonly SourceFile[]): string[] {
  const long = sources.filter(({ path, text }) => hasBoundedLength(path) && lineCount(text) > LONG_FILE_LINES);
  return long.map(({ path, text }) => `${path}: ${lineCount(text)} lines`);
}

function shapeViolations(path: string, text: string): string[] {
  const violations: string[] = [];
  const lines = lineCount(text);
  if (posix.basename(path) === 'index.ts') violations.push(`${path}: barrels (index.ts) hide where things come from`);
  if (lines > MAX_LINES && hasBoundedLength(path)) {
    violations.push(`${path}: ${lines} lines, ${MAX_LINES} are the bound`);
  }
  return violations;
}

function hasBoundedLength(path: string): boolean {
  return FOLDERS_WITH_BOUNDED_FILES.includes(path.split('/')[0] ?? '');
}

function lineCount(text: string): number {
  return text.split('\n').length - (text.endsWith('\n') ? 1 : 0);
}

function directionViolation(path: string, target: string): string[] {
  // All parts may import data (`config/*.json`).
  if (!SOURCE.test(target)) return [];
  const part = partOf(path);
  if (part === undefined) return [`${path}: belongs to no part that scripts/lib/import-rules.ts knows`];
  const allowed = [part, ...(DIRECTIONS[part] ?? [])];
  if (allowed.some((other) => isWithin(target, other))) return [];
  return [`${path}: imports ${target}; ${part} may import only ${allowed.slice(1).join(', ') || 'itself'}`];
}

/** Returns the narrowest part that contains the file: a file with its own row follows that row, not its folder's. */
function partOf(path: string): string | undefined {
  return Object.keys(DIRECTIONS)
    .filter((part) => isWithin(path, part))
    .sort((a, b) => b.length - a.length)[0];
}

function isWithin(path: string, part: string): boolean {
  return path === part || path.startsWith(`${part}/`);
}

/** Returns the project files that a source imports, including types, re-exports and `import()`. */
function importsOf({ path, text }: SourceFile): string[] {
  const specifiers = new Set<string>();
  const tsx = path.endsWith('.tsx');
  collectSpecifiers(parseSync(text, { syntax: 'typescript', tsx, target: 'es2024' }), specifiers);
  return [...specifiers]
    .filter((specifier) => specifier.startsWith('.'))
    .map((specifier) => posix.join(dirname(path), specifier));
}

function collectSpecifiers(node: unknown, into: Set<string>): void {
  if (Array.isArray(node)) {
    for (const child of node) collectSpecifiers(child, into);
  } else if (isNode(node)) {
    const specifier = specifierOf(node);
    if (isNode(specifier) && typeof specifier.value === 'string') into.add(specifier.value);
    for (const child of Object.values(node)) collectSpecifiers(child, into);
  }
}

type Node = Readonly<Record<string, unknown>>;

function isNode(value: unknown): value is Node {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Returns the specifier node of an import or export node; undefined for others. */
function specifierOf(node: Node): unknown {
  switch (node.type) {
    case 'ImportDeclaration':
    case 'ExportAllDeclaration':
    case 'ExportNamedDeclaration':
      return node.source;
    case 'TsImportType':
      return node.argument;
    case 'CallExpression': {
      const [first] = Array.isArray(node.arguments) ? node.arguments : [];
      return isNode(node.callee) && node.callee.type === 'Import' && isNode(first) ? first.expression : undefined;
    }
    default:
      return undefined;
  }
}

/** Returns one cycle per file that closes one, as the path from that file back to itself. */
function findCycles(imports: ReadonlyMap<string, readonly string[]>): string[][] {
  const cycles: string[][] = [];
  const finished = new Set<string>();
  const trail: string[] = [];
  const visit = (path: string) => {
    const at = trail.indexOf(path);
    if (at >= 0) cycles.push([...trail.slice(at), path]);
    if (at >= 0 || finished.has(path)) return;
    trail.push(path);
    for (const target of imports.get(path) ?? []) visit(target);
    trail.pop();
    finished.add(path);
  };
  for (const path of imports.keys()) visit(path);
  return cycles;
}
