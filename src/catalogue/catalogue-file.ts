import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { findNodeAtLocation, type Node, type ParseError, parseTree, printParseErrorCode } from 'jsonc-parser';
import type { z } from 'zod';
import { UnusableConfiguration } from '../config.ts';

/** One mistake in a file, with its location. */
export interface Mistake {
  /** The file's name, without its folder. */
  readonly file: string;
  /** Starts at 1. */
  readonly line: number;
  /** E.g. `plans.pro.multiplier`; empty for the file as a whole. */
  readonly field: string;
  readonly message: string;
}

/** All mistakes of the catalogues, reported together. */
export class CatalogueError extends UnusableConfiguration {
  readonly mistakes: readonly Mistake[];

  constructor(mistakes: readonly Mistake[]) {
    const lines = mistakes.map(({ file, line, field, message }) => `  ${file}:${line}  ${field}: ${message}`);
    super(`The catalogues are invalid:\n${lines.join('\n')}\n`);
    this.name = 'CatalogueError';
    this.mistakes = mistakes;
  }
}

type Path = readonly (string | number)[];

/** Maximum mistakes per file; bounds the response of the reload route. */
const MISTAKES_SHOWN = 50;

/** A JSON file that collects mistakes with the line of each field. */
export class CatalogueFile {
  readonly text: string;
  readonly mistakes: Mistake[] = [];
  readonly #name: string;
  readonly #root: Node | undefined;
  readonly #broken: boolean;

  /** Reads the file. Invalid JSON is recorded as a mistake. */
  constructor(file: URL) {
    this.#name = basename(fileURLToPath(file));
    this.text = readText(file);
    const errors: ParseError[] = [];
    this.#root = parseTree(this.text, errors, { disallowComments: true });
    this.#broken = errors.length > 0 || !this.#root;
    const [first] = errors;
    if (this.text === '') this.#add(1, [], 'is missing or empty');
    else if (first) this.#add(this.#lineOf(first.offset), [], `is not valid JSON: ${printParseErrorCode(first.error)}`);
    else if (this.#root) this.#refuseRepeated(this.#root, []);
  }

  /** Returns the parsed content; undefined, with recorded mistakes, when it does not match the schema. */
  parse<T extends z.ZodType>(schema: T): z.infer<T> | undefined {
    if (this.#broken) return undefined;
    const parsed = schema.safeParse(JSON.parse(this.text));
    if (parsed.success) return parsed.data;
    for (const issue of parsed.error.issues) this.#addIssue(issue);
    return undefined;
  }

  /** Records a mistake at the field, or at its nearest ancestor that exists. */
  mistake(path: Path, message: string): void {
    this.#add(this.#lineOf(this.#nodeAt(path)?.offset ?? 0), path, message);
  }

  /** Returns whether the file has a value at the path. */
  has(path: Path): boolean {
    return this.#root !== undefined && findNodeAtLocation(this.#root, [...path]) !== undefined;
  }

  #addIssue(issue: z.core.$ZodIssue): void {
    const path = issue.path.map((part) => (typeof part === 'symbol' ? String(part) : part));
    if (issue.code !== 'unrecognized_keys') return this.mistake(path, issue.message);
    for (const key of issue.keys) this.mistake([...path, key], 'is not a field of this file');
  }

  /** Records duplicate fields: JSON.parse silently keeps the last one, which may not be the intended one. */
  #refuseRepeated(node: Node, path: Path): void {
    const seen = new Set<unknown>();
    for (const [at, child] of (node.children ?? []).entries()) {
      if (node.type === 'array') this.#refuseRepeated(child, [...path, at]);
      if (node.type !== 'object') continue;
      const [key, value] = child.children ?? [];
      if (seen.has(key?.value)) this.#add(this.#lineOf(child.offset), [...path, key?.value], 'is a duplicate');
      seen.add(key?.value);
      if (value) this.#refuseRepeated(value, [...path, key?.value]);
    }
  }

  #nodeAt(path: Path): Node | undefined {
    for (let length = path.length; this.#root && length > 0; length--) {
      const node = findNodeAtLocation(this.#root, path.slice(0, length));
      // The line of a value: that of its key when both are on one line, else the line where the value starts.
      if (node) return node;
    }
    return this.#root;
  }

  #lineOf(offset: number): number {
    return this.text.slice(0, offset).split('\n').length;
  }

  #add(line: number, path: Path, message: string): void {
    if (this.mistakes.length >= MISTAKES_SHOWN) return;
    this.mistakes.push({ file: this.#name, line, field: path.join('.'), message });
  }
}

function readText(file: URL): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}
