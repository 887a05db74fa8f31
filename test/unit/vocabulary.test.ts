import { readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { describe, expect, it } from '@jest/globals';
import { parseSync } from '@swc/core';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import retired from './retired-words.json' with { type: 'json' };

/** docs/glossary.md has the term for each retired word. Names on the wire (`snake_case`) are public and not checked. */
const PACKAGES = ['packages/client/src', 'packages/react/src'];
const FOLDERS = ['src', 'workers', 'auth-service', ...PACKAGES, 'load', 'torture', 'bench', 'scripts', 'test'];

interface Source {
  readonly path: string;
  readonly text: string;
}

const SOURCES: readonly Source[] = FOLDERS.flatMap((folder) => {
  return readdirSync(join(PROJECT_ROOT, folder), { recursive: true, withFileTypes: true });
})
  .filter((entry) => entry.isFile() && entry.name.endsWith('.ts') && entry.name !== 'vocabulary.test.ts')
  .map((entry) => join(entry.parentPath, entry.name))
  .map((file) => ({ path: relative(PROJECT_ROOT, file), text: readFileSync(file, 'utf8') }));

/** Returns the names of variables, members and types, private ones included. */
function identifiersOf(text: string): Set<string> {
  const found = new Set<string>();
  const visit = (node: unknown): void => {
    if (Array.isArray(node)) {
      for (const child of node) visit(child);
    } else if (typeof node === 'object' && node !== null) {
      const { type, value } = node as { readonly type?: unknown; readonly value?: unknown };
      const isName = type === 'Identifier' || type === 'PrivateName';
      if (isName && typeof value === 'string') found.add(value);
      for (const child of Object.values(node)) visit(child);
    }
  };
  visit(parseSync(text, { syntax: 'typescript', target: 'es2024' }));
  return found;
}

function wordsOf(identifier: string): string[] {
  // `under_way` is a field on the wire, `MAX_FOLDED` a constant.
  if (/_/.test(identifier) && /[a-z]/.test(identifier)) return [];
  return identifier
    .replaceAll(/([a-z0-9])([A-Z])/g, '$1_$2')
    .toLowerCase()
    .split('_')
    .filter((word) => word !== '');
}

function commentsOf(text: string): string {
  const comments = text.match(/(?<=^|[\s(])\/\*[\s\S]*?\*\/|(?<=^|\s)\/\/[^\n]*/g) ?? [];
  return comments.join('\n').replaceAll(/\s*\n\s*(?:\*|\/\/)?\s*/g, ' ');
}

function retiredIdentifiers({ path, text }: Source): string[] {
  const allowed: readonly string[] =
    (retired.allowedIdentifiers as Readonly<Record<string, readonly string[]>>)[path] ?? [];
  const phrases = Object.keys(retired.identifierPhrases);
  return [...identifiersOf(text)].filter((identifier) => {
    const words = wordsOf(identifier);
    const isRetired = words.some((word) => Object.hasOwn(retired.identifiers, word) && !allowed.includes(word));
    return isRetired || phrases.some((phrase) => identifier.toLowerCase().includes(phrase.toLowerCase()));
  });
}

describe('the vocabulary', () => {
  it('has no retired word in an identifier', () => {
    const found = SOURCES.flatMap((source) => retiredIdentifiers(source).map((name) => `${source.path}: ${name}`));
    expect(found).toEqual([]);
  });

  it('has no retired phrase in a comment', () => {
    const phrases = new RegExp(`\\b(?:${Object.keys(retired.comments).join('|')})\\b`, 'gi');
    const found = SOURCES.flatMap(({ path, text }) => {
      const hits = commentsOf(text).match(phrases) ?? [];
      return [...new Set(hits)].map((phrase) => `${path}: ${phrase}`);
    });
    expect(found).toEqual([]);
  });

  it('finds a retired word in a private name, a constant and a type, and none in a field of the wire', () => {
    const text = 'class Inbox { #place = 0; }\nconst MAX_ROADS = 1;\nconst x = { under_way: 1, replaced: 2 };\n';
    expect(retiredIdentifiers({ path: 'src/a.ts', text }).toSorted()).toEqual(['Inbox', 'MAX_ROADS', 'place']);
  });

  it('reads comments across their lines', () => {
    expect(commentsOf('/** The node\n * goes on. */\nconst url = "http://x";\n')).toContain('node goes on');
  });
});
