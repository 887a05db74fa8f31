import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { parseSync } from '@swc/core';
import { z } from 'zod';
import { linearityProblem } from './regex-proof.ts';

/** Folders whose expressions match text of clients, upstream servers, the auth service or operators. */
const FOLDERS = ['src', 'workers', 'scripts', 'console/src'];
const SOURCE = /\.(tsx?|mjs|js)$/;
/** String methods that compile a string argument to an expression. */
const EXPRESSION_METHODS: ReadonlySet<unknown> = new Set(['match', 'matchAll', 'search']);
/** Syntax nodes of a string argument. */
const TEXT_NODES: ReadonlySet<unknown> = new Set(['StringLiteral', 'TemplateLiteral', 'BinaryExpression']);

/** Files that may build expressions at run time, each with the reason why their cost stays linear. */
const DYNAMIC_ALLOWED: Readonly<Record<string, string>> = {
  'src/lib/linear-patterns.ts': 'compiled for its syntax only, never matched',
  'src/upstreams/schemas.ts': 'matched against 1,024 characters at most, within a SyncDeadline',
};

export interface SourceFile {
  /** Relative to the checkout. */
  readonly path: string;
  readonly text: string;
}

/** One regular expression of the sources. */
export interface Expression {
  readonly source: string;
  readonly flags: string;
  /** `path:line` of its first occurrence. */
  readonly at: string;
}

export interface Extracted {
  readonly expressions: readonly Expression[];
  /** Expressions whose text is known only at run time. */
  readonly violations: readonly string[];
}

export interface Findings {
  /** One line per expression without a proof of linearity, and per expression that is built at run time. */
  readonly violations: readonly string[];
  /** Number of distinct expressions that are proven or examined. */
  readonly proven: number;
  /** Number of occurrences of expressions. */
  readonly occurrences: number;
}

/** Expressions of libraries that match text of clients. */
const OF_LIBRARIES: readonly Expression[] = [
  { source: z.core.regexes.datetime({}).source, flags: '', at: 'zod: iso.datetime()' },
  { source: z.core.regexes.datetime({ offset: true }).source, flags: '', at: 'zod: iso.datetime({ offset: true })' },
];

export function findSlowExpressions(sources: readonly SourceFile[]): Findings {
  const extracted = sources.map(extractExpressions);
  const expressions = [...extracted.flatMap((one) => one.expressions), ...OF_LIBRARIES];
  const distinct = new Map<string, Expression>();
  for (const expression of expressions) {
    const literal = `/${expression.source}/${expression.flags}`;
    if (!distinct.has(literal)) distinct.set(literal, expression);
  }
  const problems = [...distinct].flatMap(([literal, expression]) => {
    const problem = linearityProblem(expression);
    return problem === undefined ? [] : [`${expression.at}: ${literal} ${problem}`];
  });
  return {
    violations: [...extracted.flatMap((one) => one.violations), ...problems],
    proven: distinct.size - problems.length,
    occurrences: expressions.length,
  };
}

export function readExpressionSources(root: string): SourceFile[] {
  return FOLDERS.map((folder) => join(root, folder))
    .filter((folder) => existsSync(folder))
    .flatMap((folder) => readdirSync(folder, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile() && SOURCE.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name))
    .sort()
    .map((file) => ({ path: relative(root, file), text: readFileSync(file, 'utf8') }));
}

/** Returns every regular expression literal and every `RegExp` call of a source. */
export function extractExpressions({ path, text }: SourceFile): Extracted {
  const expressions: Expression[] = [];
  const violations: string[] = [];
  const syntax = /\.tsx?$/.test(path) ? 'typescript' : 'ecmascript';
  for (const node of nodesOf(parseSync(text, { syntax, tsx: path.endsWith('x'), target: 'es2024' }))) {
    const found = expressionOf(node) ?? separatorOf(node);
    if (found === 'dynamic') {
      if (DYNAMIC_ALLOWED[path] === undefined) violations.push(`${path}: builds a regular expression at run time`);
    } else if (found) expressions.push({ ...found, at: `${path}:${lineOf(text, found.source)}` });
  }
  return { expressions, violations };
}

type Found = Pick<Expression, 'source' | 'flags'> | 'dynamic' | undefined;

function expressionOf(node: Node): Found {
  if (node.type === 'RegExpLiteral') return { source: String(node.pattern), flags: String(node.flags) };
  if (node.type !== 'NewExpression' && node.type !== 'CallExpression') return undefined;
  const { callee } = node;
  const [first, second] = argumentsOf(node);
  if (!isNode(callee)) return undefined;
  if (callee.type === 'Identifier' && callee.value === 'RegExp') {
    if (first?.type !== 'StringLiteral' || (second && second.type !== 'StringLiteral')) return 'dynamic';
    return { source: String(first.value), flags: String(second?.value ?? '') };
  }
  const { property } = callee;
  const makesOne = isNode(property) && EXPRESSION_METHODS.has(property.value) && TEXT_NODES.has(first?.type);
  return makesOne ? 'dynamic' : undefined;
}

/** Returns the expression at which a string is split. It matches repeatedly, like one with the flag `g`. */
function separatorOf(node: Node): Found {
  const { callee } = node;
  const [first] = node.type === 'CallExpression' ? argumentsOf(node) : [];
  if (first?.type !== 'RegExpLiteral' || !isNode(callee) || !isNode(callee.property)) return undefined;
  if (callee.property.value !== 'split') return undefined;
  return { source: String(first.pattern), flags: `g${String(first.flags).replace('g', '')}` };
}

function argumentsOf(node: Node): Node[] {
  const given: readonly unknown[] = Array.isArray(node.arguments) ? node.arguments : [];
  return given.flatMap((argument) => (isNode(argument) && isNode(argument.expression) ? [argument.expression] : []));
}

type Node = Readonly<Record<string, unknown>>;

function isNode(value: unknown): value is Node {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function* nodesOf(value: unknown): Generator<Node> {
  if (Array.isArray(value)) {
    for (const child of value) yield* nodesOf(child);
  } else if (isNode(value)) {
    yield value;
    for (const child of Object.values(value)) yield* nodesOf(child);
  }
}

function lineOf(text: string, source: string): number {
  return text.slice(0, Math.max(0, text.indexOf(source))).split('\n').length;
}
