import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { createConfig, lintFromString } from '@redocly/openapi-core';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { ERRORS } from '../../src/protocol/error-table.ts';
import { nodeUrl } from '../support/nodes.ts';

/**
 * The stored document, from which clients can be generated. `UPDATE_OPENAPI=1 npm test -- test/integration/openapi.test.ts`
 * writes it again after an intended change.
 */
const STORED = join(PROJECT_ROOT, 'docs/openapi.json');

interface Media {
  readonly schema: { readonly $ref?: string; readonly examples?: readonly unknown[] };
  readonly example?: unknown;
  readonly examples?: object;
}
interface Operation {
  readonly operationId: string;
  readonly summary: string;
  readonly description: string;
  readonly tags: readonly string[];
  readonly security: readonly object[];
  readonly requestBody?: { readonly content: Record<string, Media> };
  readonly responses: Record<string, { readonly description: string; readonly content?: Record<string, Media> }>;
}
interface OpenApiDocument {
  readonly paths: Record<string, Record<string, Operation>>;
  readonly tags: readonly { readonly name: string }[];
  readonly components: { readonly schemas: Record<string, Media['schema']>; readonly examples: Record<string, object> };
}

let document: OpenApiDocument;
let operations: readonly Operation[];

beforeAll(async () => {
  const response = await fetch(new URL('/openapi.json', nodeUrl(0)));
  document = (await response.json()) as OpenApiDocument;
  operations = Object.values(document.paths).flatMap((path) => Object.values(path));
});

function hasExample({ schema, example, examples }: Media): boolean {
  const component = document.components.schemas[schema.$ref?.replace('#/components/schemas/', '') ?? ''];
  return [example, examples, schema.examples, component?.examples].some((found) => found !== undefined);
}

describe('/openapi.json', () => {
  it('is the document in docs/openapi.json', () => {
    if (process.env.UPDATE_OPENAPI) writeFileSync(STORED, `${JSON.stringify(document, undefined, 2)}\n`);
    expect(document).toEqual(JSON.parse(readFileSync(STORED, 'utf8')));
  });

  it('is the same on every node', async () => {
    const other = await fetch(new URL('/openapi.json', nodeUrl(1)));
    expect(await other.text()).toBe(JSON.stringify(document));
  });

  // A route without a schema is in the document too, and lacks a summary: only `hide` keeps a route out.
  it('has no error and no warning of the Redocly linter', async () => {
    const rules = {
      'operation-description': 'error',
      'operation-tag-defined': 'error',
      'parameter-description': 'error',
    } as const;
    const config = await createConfig({ extends: ['recommended-strict'], rules });
    const problems = await lintFromString({ source: JSON.stringify(document), config });
    expect(problems.map(({ ruleId, message, location }) => `${ruleId}: ${message} ${location[0]?.pointer}`)).toEqual(
      [],
    );
  });

  it('has an example for each body', () => {
    const lacking = operations.flatMap(({ operationId, requestBody, responses }) => {
      const bodies = [requestBody, ...Object.values(responses)].flatMap((body) => Object.entries(body?.content ?? {}));
      return bodies.filter(([, media]) => !hasExample(media)).map(([type]) => `${operationId} ${type}`);
    });
    expect(lacking).toEqual([]);
  });

  it('lists per operation the errors of its authentication', () => {
    const secured = operations.filter(({ security }) => security.length > 0);
    expect(secured.length).toBeGreaterThan(20);
    const lacking = secured.filter(({ responses }) => !['401', '403', '429', '503'].every((code) => code in responses));
    expect(lacking.map(({ operationId }) => operationId)).toEqual([]);
  });

  it('has only errors of the table as examples, with their codes and texts', () => {
    for (const [name, example] of Object.entries(document.components.examples)) {
      const [code = '', form] = name.split('.');
      const row = Object.entries(ERRORS).find(([key]) => key === code)?.[1];
      const error = form === undefined ? { code, message: row?.text } : { code: row?.jsonrpc, message: row?.text };
      expect(example).toMatchObject({ summary: row?.text, value: { error } });
    }
  });

  it('has a summary without a period and a description in sentences for each operation', () => {
    const wrong = operations.filter(({ summary, description }) => {
      return !/^[A-Z][a-z]+ .*[^.]$/.test(summary) || !/^[A-Z`].*\.$/s.test(description);
    });
    expect(wrong.map(({ operationId }) => operationId)).toEqual([]);
  });
});
