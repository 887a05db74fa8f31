import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { describeLeaks, findLeaks, RECORDS_VARIABLE, recordOutput, recordSecrets } from '../../scripts/lib/leaks.ts';
import { mintToken } from '../support/tokens.ts';

const before = process.env[RECORDS_VARIABLE];
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tollgate-leaks-'));
  process.env[RECORDS_VARIABLE] = folder;
});

afterEach(() => {
  rmSync(folder, { recursive: true });
  if (before === undefined) Reflect.deleteProperty(process.env, RECORDS_VARIABLE);
  else process.env[RECORDS_VARIABLE] = before;
});

const secret = randomBytes(32).toString('base64url');

describe('the search for secrets at the end of a test run', () => {
  it.each([
    ['a planted secret', `{"msg":"login","token":"${secret}"}`],
    ['its first 16 characters', `{"msg":"login ${secret.slice(0, 16)} failed"}`],
    ['a token with its signature', `{"msg":"eyJhbGciOiJIUzI1NiJ9.e30.${secret}"}`],
  ])('finds %s in a log line, and does not print it', (_what, line) => {
    recordSecrets(secret);
    recordOutput(line);
    const leaks = findLeaks(folder);
    expect(leaks.found).toHaveLength(1);
    expect(describeLeaks(leaks)).toContain('1 log lines contain a secret');
    expect(describeLeaks(leaks)).not.toContain(secret.slice(0, 16));
  });

  it('records the tokens that tests issue', () => {
    const stack = { secrets: { jwt: secret }, authUrl: 'http://issuer.test' } as Parameters<typeof mintToken>[1] &
      object;
    const { token } = mintToken({}, { stack: stack as never });
    recordOutput(`{"msg":"${token}"}`);
    expect(findLeaks(folder).found).toHaveLength(1);
  });

  it('finds nothing in other lines, and in output that is no log', () => {
    recordSecrets(secret);
    recordOutput(`{"msg":"${randomBytes(32).toString('base64url')}"}`);
    recordOutput(`Password of the demo accounts: ${secret}`);
    expect(findLeaks(folder)).toEqual({ secrets: 1, lines: 1, found: [] });
    expect(describeLeaks(findLeaks(folder))).toBeUndefined();
  });
});
