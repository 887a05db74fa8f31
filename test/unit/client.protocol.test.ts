import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from '@jest/globals';
import { renderClientProtocol, renderPythonProtocol } from '../../scripts/lib/client-protocol.ts';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';

it.each([
  ['client/src/protocol.ts', renderClientProtocol],
  ['python/src/tollgate_client/protocol.py', renderPythonProtocol],
])('packages/%s has the error codes, events and messages of the gateway', (path, render) => {
  // If this fails, run: npm run generate:client
  expect(readFileSync(join(PROJECT_ROOT, 'packages', path), 'utf8')).toBe(render());
});
