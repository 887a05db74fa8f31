import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { describe, expect, it, jest } from '@jest/globals';
import { type Exceptions, judge, parseAudit, parseExceptions } from '../../scripts/lib/advisories.ts';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { closeAfter } from '../support/open-resources.ts';

const NOW = new Date('2026-12-01T12:00:00Z');
const ID = 'GHSA-2345-6789-cfgh';
const EXCEPTION = { advisory: ID, package: 'synthetic-a', reason: 'The code in question is not reached.' };

/** As `npm audit --json` prints it for packages that do not exist; `synthetic-b` depends on `synthetic-a`. */
function report(severity: string): string {
  const url = `https://github.com/advisories/${ID}`;
  const advisory = { source: 1, name: 'synthetic-a', dependency: 'synthetic-a', title: 'Slow parser', url, severity };
  const row = (name: string, via: unknown[]) => {
    return { name, severity, isDirect: false, via, effects: [], range: '<2', nodes: [`node_modules/${name}`] };
  };
  const vulnerabilities = {
    'synthetic-a': row('synthetic-a', [{ ...advisory, range: '<2' }]),
    'synthetic-b': row('synthetic-b', ['synthetic-a']),
  };
  return JSON.stringify({ auditReportVersion: 2, vulnerabilities, metadata: {} });
}

function lock(dev: boolean): string {
  const version = '1.0.0';
  const root = dev ? { devDependencies: { 'synthetic-a': '1' } } : { dependencies: { 'synthetic-a': '1' } };
  const row = { version, ...(dev ? { dev: true } : {}) };
  const packages = { '': root, 'node_modules/synthetic-a': row, 'node_modules/synthetic-b': row };
  return JSON.stringify({ name: 'sample', version, lockfileVersion: 3, requires: true, packages });
}

function verdict(severity: string, { dev = false, exceptions = [] as Exceptions } = {}) {
  return judge(parseAudit(report(severity), lock(dev)), exceptions);
}

describe('a known advisory', () => {
  it.each(['high', 'critical'])(
    'that is %s fails the check for a production dependency, and is named once',
    (severity) => {
      const { ok, lines } = verdict(severity);
      expect(ok).toBe(false);
      expect(lines).toEqual([
        `FAILS: ${severity} advisory of the production dependency synthetic-a: Slow parser (https://github.com/advisories/${ID})`,
        '1 known advisories, 1 of which fail the check.',
      ]);
    },
  );

  it.each(['info', 'low', 'moderate'])('that is %s is printed and does not fail the check', (severity) => {
    const { ok, lines } = verdict(severity);
    expect([ok, lines[0]]).toEqual([true, expect.stringMatching(/^noted: .*synthetic-a/)]);
  });

  it('of a development dependency is printed and does not fail the check', () => {
    const { ok, lines } = verdict('critical', { dev: true });
    expect([ok, lines[0]]).toEqual([true, expect.stringMatching(/^noted: critical .* development dependency/)]);
  });

  it('is allowed by an exception for this advisory and package, and by no other', () => {
    const exceptions = [{ ...EXCEPTION, expires: '2026-12-24' }];
    expect(verdict('high', { exceptions })).toMatchObject({
      ok: true,
      lines: expect.arrayContaining([expect.stringMatching(/^allowed: /)]),
    });
    for (const other of [{ package: 'synthetic-b' }, { advisory: 'GHSA-2345-6789-cfgj' }]) {
      const { ok, lines } = verdict('high', { exceptions: exceptions.map((one) => ({ ...one, ...other })) });
      expect(ok).toBe(false);
      expect(lines.join()).toContain('unused exception: ');
    }
  });
});

describe('a registry without an answer', () => {
  it.each([
    ['refuses', { message: '405 Method Not Allowed', statusCode: 405, error: { summary: '', detail: '' } }],
    ['is away', { message: 'request failed, reason: connect ECONNREFUSED', error: { summary: '', detail: '' } }],
  ])('that %s does not fail the check, and is printed', (_how, printed) => {
    const { ok, lines } = judge(parseAudit(JSON.stringify(printed), lock(false)), []);
    expect(ok).toBe(true);
    expect(lines).toEqual([`NOT CHECKED: the registry did not answer with advisories: ${printed.message}`]);
  });

  it.each([
    ['a mistake of the caller', JSON.stringify({ error: { code: 'ENOLOCK', summary: 'no lock file' } })],
    ['such a mistake with a message', JSON.stringify({ message: 'x', error: { code: 'ENOLOCK', summary: '' } })],
    ['a report of another version', JSON.stringify({ auditReportVersion: 3, vulnerabilities: {} })],
    ['no JSON', 'npm error'],
  ])('is not taken for one by %s, which fails the check', (_what, printed) => {
    expect(() => parseAudit(printed, lock(false))).toThrow();
  });
});

describe('the list of exceptions', () => {
  const parse = (...entries: object[]) => parseExceptions(JSON.stringify(entries), NOW);

  it('of this project is valid today', async () => {
    const file = await readFile(join(PROJECT_ROOT, '.ci/allowed-advisories.json'), 'utf8');
    expect(() => parseExceptions(file, new Date())).not.toThrow();
  });

  it('holds an entry to the end of the day it names', () => {
    expect(parse({ ...EXCEPTION, expires: '2026-12-01' })).toHaveLength(1);
    expect(parse({ ...EXCEPTION, expires: '2027-03-01' })).toHaveLength(1);
  });

  it.each([
    ['expired', [{ ...EXCEPTION, expires: '2026-11-30' }], /expired on 2026-11-30/],
    ['that lasts too long', [{ ...EXCEPTION, expires: '2027-03-03' }], /longer than 90 days/],
    ['without an end', [EXCEPTION], /expires/],
    ['with a date that does not exist', [{ ...EXCEPTION, expires: '2027-02-30' }], /expires/],
    ['without a reason', [{ ...EXCEPTION, reason: '-', expires: '2026-12-24' }], /has to say why/],
    ['with another kind of id', [{ ...EXCEPTION, advisory: 'CVE-1-1', expires: '2026-12-24' }], /GitHub advisory id/],
    ['with an unknown field', [{ ...EXCEPTION, until: 1, expires: '2026-12-24' }], /until/],
    ['listed twice', Array(2).fill({ ...EXCEPTION, expires: '2026-12-24' }), /listed twice/],
  ])('refuses an entry %s', (_what, entries, problem) => {
    expect(() => parse(...entries)).toThrow(problem);
  });
});

/** Runs the script in a project with one dependency, against a local registry. */
async function runCheck(answer: (response: ServerResponse) => void, { dev = false, allowed = '[]' } = {}) {
  const root = await mkdtemp(join(tmpdir(), 'tollgate-advisories-'));
  closeAfter('test', () => rm(root, { recursive: true }));
  const { packages } = JSON.parse(lock(dev));
  await writeFile(join(root, 'package.json'), JSON.stringify({ name: 'sample', version: '1.0.0', ...packages[''] }));
  await writeFile(join(root, 'package-lock.json'), lock(dev));
  await mkdir(join(root, '.ci'));
  await writeFile(join(root, '.ci/allowed-advisories.json'), allowed);
  const registry = createServer((request, response) => {
    if (request.method === 'POST') return answer(response);
    const name = request.url?.slice(1) ?? '';
    response.end(JSON.stringify({ name, versions: { '1.0.0': { name, version: '1.0.0' } } }));
  }).listen(0, '127.0.0.1');
  await once(registry, 'listening');
  closeAfter('test', () => void registry.close());
  const address = registry.address();
  const port = typeof address === 'object' && address ? address.port : 0;
  const env = {
    ...process.env,
    npm_config_registry: `http://127.0.0.1:${port}/`,
    npm_config_cache: join(root, 'cache'),
  };
  const script = join(PROJECT_ROOT, 'scripts/check-advisories.ts');
  const child = spawn(process.execPath, [script, root], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  const [output, errors, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')]);
  return { code, output, errors };
}

// Each test starts npm several times.
jest.setTimeout(180_000);

describe('npm run check:advisories', () => {
  const advisory = {
    id: 1,
    url: `https://github.com/advisories/${ID}`,
    title: 'Slow parser',
    vulnerable_versions: '<2',
  };
  const answer = (severity: string) => (response: ServerResponse) => {
    response.end(JSON.stringify({ 'synthetic-a': [{ ...advisory, severity, cwe: [], cvss: { score: 7 } }] }));
  };

  it('fails for what the registry answers about the lock file, unless an exception allows it', async () => {
    const failed = await runCheck(answer('high'));
    expect(failed).toMatchObject({ code: 1, output: expect.stringContaining('FAILS: high advisory') });
    const expires = new Date(Date.now() + 86_400_000).toISOString().slice(0, 10);
    const allowed = await runCheck(answer('high'), { allowed: JSON.stringify([{ ...EXCEPTION, expires }]) });
    expect(allowed).toMatchObject({ code: 0, output: expect.stringContaining('allowed: high advisory') });
    expect(await runCheck(answer('critical'), { dev: true })).toMatchObject({ code: 0 });
  });

  it('passes, and prints so, when the registry has no advisories to give', async () => {
    const output = expect.stringMatching(/^NOT CHECKED: .*405/);
    expect(await runCheck((response) => void response.writeHead(405).end())).toMatchObject({ code: 0, output });
  });

  it('fails for an expired exception whatever the registry answers', async () => {
    const allowed = JSON.stringify([{ ...EXCEPTION, expires: '2026-01-01' }]);
    const { code, errors } = await runCheck((response) => void response.writeHead(405).end(), { allowed });
    expect(code).toBe(1);
    expect(errors).toContain('expired on 2026-01-01');
  });
});
