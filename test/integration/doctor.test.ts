import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { freePort, freePorts } from '../../scripts/lib/ports.ts';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import type { Finding } from '../../src/doctor/findings.ts';
import { ModelServer } from '../support/model-server.ts';
import { closeAfter } from '../support/open-resources.ts';
import { RedisProcess } from '../support/redis-process.ts';
import { oneRedisUrl, stack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';
import { HttpUpstream } from '../support/upstreams/http-upstream.ts';
import { echo } from '../support/upstreams/mcp-script.ts';
import { httpRow } from '../support/upstreams/upstream-node.ts';

type Environment = Readonly<Record<string, string>>;

interface Examination {
  readonly code: number | null;
  readonly output: string;
  /** `area: check` → finding. */
  readonly found: ReadonlyMap<string, Finding>;
  readonly failed: string[];
}

let healthy: Environment;
beforeAll(async () => {
  const [port, workerPort, authPort] = await freePorts(3);
  healthy = {
    PATH: process.env.PATH ?? '',
    ENVIRONMENT: 'test',
    HOST: '127.0.0.1',
    PORT: String(port),
    WORKER_PORT: String(workerPort),
    AUTH_PORT: String(authPort),
    REDIS_URL: await oneRedisUrl(),
    AUTH_SERVICE_URL: stack().authUrl,
    JWT_SECRET_KEY: stack().secrets.jwt,
    SERVICE_SECRET: stack().secrets.service,
  };
});

/** Runs the doctor as a process. */
async function examine(more: Environment = {}, { args = ['--json'], input = '' } = {}): Promise<Examination> {
  const child = spawn(process.execPath, ['src/doctor/main.ts', ...args], {
    cwd: PROJECT_ROOT,
    env: { ...healthy, ...more },
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
  }
  child.stdin.end(input);
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  const findings: Finding[] = args.includes('--json') && code !== 2 ? JSON.parse(output).findings : [];
  const found = new Map(findings.map((finding) => [`${finding.area}: ${finding.check}`, finding]));
  const failed = [...found].filter(([, { status }]) => status === 'failed').map(([name]) => name);
  for (const secret of [stack().secrets.jwt, stack().secrets.service]) expect(output).not.toContain(secret);
  return { code, output, found, failed };
}

/** Serves one response for every request. */
async function serve(status: number, body: string, type = 'application/json'): Promise<string> {
  const server: Server = createServer((_request, response) => {
    response.writeHead(status, { 'content-type': type }).end(body);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  closeAfter('test', () => new Promise<void>((resolve) => void server.close(() => resolve())));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

function toolServers(rows: readonly object[]): Environment {
  const folder = mkdtempSync(join(tmpdir(), 'tollgate-doctor-'));
  closeAfter('test', () => rmSync(folder, { recursive: true }));
  const file = join(folder, 'servers.json');
  writeFileSync(file, JSON.stringify({ servers: rows }));
  return { TOOL_SERVERS: file };
}

describe('the doctor', () => {
  it('finds nothing to correct in a deployment that works, and verifies a token', async () => {
    const model = await ModelServer.start(({ body }) =>
      body.tools ? { calls: [{ name: 'tollgate_doctor', args: {} }] } : { text: ['ready'] },
    );
    closeAfter('test', () => model.close());
    const upstream = await HttpUpstream.start({ tools: { echo } });
    const { token, userId } = mintToken();
    const { code, output, found, failed } = await examine(
      { AGENT_MODEL_URL: model.url, AGENT_MODEL_NAME: 'm', ...toolServers([httpRow(upstream.url, ['echo'])]) },
      { args: ['--json', '--token', '-'], input: `${token}\n` },
    );
    expect([failed, code]).toEqual([[], 0]);
    expect(found.get('identity JWT_ISSUER: token')).toMatchObject({ status: 'ok', detail: 'accepted' });
    expect(found.get('model m: tool call')).toMatchObject({ status: 'ok' });
    expect(found.get('tool server remote: list')).toMatchObject({ status: 'ok', detail: '1 usable tools' });
    for (const private_ of [token, userId]) expect(output).not.toContain(private_);
  });

  it('names a Redis that evicts keys', async () => {
    const settings = [['maxmemory-policy', 'allkeys-lru']] as const;
    const port = await freePort();
    const redis = await RedisProcess.start({ port, settings: [['port', String(port)], ...settings] });
    closeAfter('test', () => redis.close());
    const { code, found, failed } = await examine({ REDIS_URL: `redis://:hunter2222@127.0.0.1:${port}` });
    expect([failed, code]).toEqual([['redis: connection'], 1]);
    expect(found.get('redis: connection')).toMatchObject({ advice: expect.stringContaining('noeviction') });
  });

  it.each([
    ['answers 404', 404, '{}', 'application/json'],
    ['answers a page', 200, '<html></html>', 'text/html'],
    ['is empty', 200, '{"keys":[]}', 'application/json'],
  ])('names a key set that %s', async (_what, status, body, type) => {
    const url = await serve(status, body, type);
    const { code, found, failed } = await examine({ JWKS_URL: `${url}/jwks.json` });
    expect([failed, code]).toEqual([['identity JWT_ISSUER: keys'], 1]);
    expect(found.get('identity JWT_ISSUER: keys')).toMatchObject({ advice: expect.stringContaining('JWKS_URL') });
  });

  it('names a provider whose metadata are of another issuer', async () => {
    const { failed, found } = await examine({ JWT_ISSUER: 'https://other.example.test' });
    expect(failed).toEqual(['identity JWT_ISSUER: metadata']);
    expect(found.get('identity JWT_ISSUER: metadata')?.detail).toContain('another issuer');
  });

  it('names a model that refuses the key, and never prints the key', async () => {
    const model = await ModelServer.start(() => ({ status: 401 }));
    closeAfter('test', () => model.close());
    const key = 'sk-abcdefghijklmnop';
    const env = { AGENT_MODEL_URL: model.url, AGENT_MODEL_NAME: 'm', AGENT_MODEL_KEY: key };
    const { code, found, failed, output } = await examine(env);
    expect([failed, code]).toEqual([['model m: reply'], 1]);
    expect(found.get('model m: reply')).toMatchObject({ advice: expect.stringContaining('AGENT_MODEL_KEY') });
    expect(output).not.toContain(key);
  });

  it('warns about a model that calls no tool', async () => {
    const model = await ModelServer.start(() => ({ text: ['I cannot.'] }));
    closeAfter('test', () => model.close());
    const { code, found } = await examine({ AGENT_MODEL_URL: model.url, AGENT_MODEL_NAME: 'm' });
    expect(found.get('model m: tool call')).toMatchObject({ status: 'warning' });
    expect(code).toBe(0);
  });

  it('names a tool server that is down, and what another does not list', async () => {
    const upstream = await HttpUpstream.start({ tools: { echo } });
    const down = `http://127.0.0.1:${await freePort()}/mcp`;
    const rows = [httpRow(upstream.url, ['echo', 'gone']), httpRow(down, ['lost'], { name: 'down' })];
    const { code, found, failed } = await examine(toolServers(rows));
    expect([failed, code]).toEqual([['tool server down: list'], 1]);
    expect(found.get('tool server remote: tool gone')).toMatchObject({ status: 'warning' });
  });

  it('names a short secret and every other mistake of the environment', async () => {
    const { code, failed, output } = await examine({ SERVICE_SECRET: 'short-one', REDIS_URL: '' });
    expect([failed, code]).toEqual([['configuration: SERVICE_SECRET', 'configuration: REDIS_URL'], 1]);
    expect(output).not.toContain('short-one');
  });

  it('tells a port of Tollgate from that of another program', async () => {
    const [gateway, other] = [new URL(stack().gateways[0]?.url ?? ''), new URL(await serve(200, '[]'))];
    const { code, found } = await examine({ PORT: gateway.port, WORKER_PORT: other.port });
    expect(found.get('ports: PORT')).toMatchObject({ status: 'ok', detail: expect.stringContaining('Tollgate') });
    expect(found.get('ports: WORKER_PORT')).toMatchObject({ status: 'warning' });
    expect(code).toBe(0);
  });

  it('prints lines for people, and its usage for wrong arguments', async () => {
    const { output, code } = await examine({ SERVICE_SECRET: 'short-one' }, { args: [] });
    expect(output).toMatch(/^FAILED {2}configuration: SERVICE_SECRET: WEAK_SECRET.*\n {8}→ Generate SERVICE_SECRET/m);
    expect(output).toContain('Something needs to be corrected: 1 failed');
    expect(code).toBe(1);
    const wrong = await examine({}, { args: ['--toke', 'x'] });
    expect([wrong.code, wrong.output]).toEqual([2, expect.stringContaining('npm run doctor')]);
  });
});

describe('a token that the doctor verifies', () => {
  it.each([
    ['of another audience', { aud: 'other-service' }, /audience/, 'JWT_AUDIENCE'],
    ['of another issuer', { iss: 'https://other.example.test' }, /issuer/, 'JWT_ISSUER'],
    ['that has expired', { iat: 1_000, exp: 2_000 }, /TOKEN_EXPIRED/, 'new token'],
    ['without a token id', { jti: undefined }, /claims: jti/, 'claims'],
    ['with a number as roles', { roles: 5 as never }, /claims: roles/, 'claims'],
  ])('%s is refused by a named rule', async (_what, claims, rule, advice) => {
    const { token, userId } = mintToken(claims as never);
    const { found, code, output } = await examine({}, { args: ['--json', '--token', '-'], input: token });
    const finding = found.get('identity JWT_ISSUER: token');
    expect(finding).toMatchObject({ status: 'failed', advice: expect.stringContaining(advice) });
    expect(finding?.detail).toMatch(rule);
    expect(code).toBe(1);
    for (const value of [token, userId, 'other-service', 'other.example.test']) expect(output).not.toContain(value);
  });
});
