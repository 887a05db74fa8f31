import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from '@jest/globals';
import { renderClientProtocol } from '../../scripts/lib/client-protocol.ts';

it('the client package has the error codes, events and messages of the gateway', () => {
  const path = join(import.meta.dirname, '../../packages/client/src/protocol.ts');
  // If this fails, run: node scripts/generate-client-protocol.ts
  expect(readFileSync(path, 'utf8')).toBe(renderClientProtocol());
});
