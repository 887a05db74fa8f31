import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseSync } from '@swc/core';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';

type Node = Readonly<Record<string, unknown>>;

/**
 * Returns the titles of the tests of a file as they are written in it, `describe` not included: the first argument of
 * `it(…)` and of `it.each(…)(…)`. A test that is skipped or only a plan has no title here.
 */
export function testTitles(file: string): string[] {
  const source = readFileSync(join(PROJECT_ROOT, file), 'utf8');
  const titles: string[] = [];
  visit(parseSync(source, { syntax: 'typescript', target: 'es2024' }), (node) => {
    if (node.type === 'CallExpression' && runsTest(node.callee)) titles.push(...literal(node.arguments));
  });
  return titles;
}

/** `it` or `itInLongForm` and the result of their `each`; not `it.skip` and `it.todo`. */
function runsTest(callee: unknown): boolean {
  if (!isNode(callee)) return false;
  if (callee.type === 'Identifier') return /^(it|test|itInLongForm)$/.test(String(callee.value));
  if (callee.type !== 'CallExpression' || !isNode(callee.callee)) return false;
  const { type, object, property } = callee.callee;
  return type === 'MemberExpression' && runsTest(object) && isNode(property) && property.value === 'each';
}

function literal(parameters: unknown): string[] {
  const [first] = Array.isArray(parameters) ? parameters : [];
  const { expression } = isNode(first) ? first : {};
  if (!isNode(expression)) return [];
  if (expression.type === 'StringLiteral') return [String(expression.value)];
  const [quasi] = expression.type === 'TemplateLiteral' && Array.isArray(expression.quasis) ? expression.quasis : [];
  return isNode(quasi) ? [String(quasi.cooked)] : [];
}

function visit(value: unknown, each: (node: Node) => void): void {
  if (Array.isArray(value)) for (const child of value) visit(child, each);
  if (!isNode(value)) return;
  each(value);
  for (const child of Object.values(value)) visit(child, each);
}

function isNode(value: unknown): value is Node {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
