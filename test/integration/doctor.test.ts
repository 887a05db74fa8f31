import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, expect, it } from '@jest/globals';
import { freePort } from '../../scripts/lib/ports.ts';
import { examine, jsonFile } from '../support/doctor.ts';
import { ModelServer } from '../support/model-server.ts';
import { closeAfter } from '../support/open-resources.ts';
import { RedisProcess } from '../support/redis-process.ts';
import { stack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';
import { HttpUpstream } from '../support/upstreams/http-upstream.ts';
import { echo } from '../support/upstreams/mcp-script.ts';
import { GOOD_TOOL, GREETING, ScriptedServer } from '../support/upstreams/scripted-server.ts';
import { httpRow } from '../support/upstreams/upstream-node.ts';

/** Serves one response for every request. */
async function serve(status: number, body: string, type = 'application/json'): Promise<string> {
  const server: Server = createServer((_request, response) => {
    response.writeHead(status, { 'content-type': type }).end(body);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  closeAfter('test', () => new Promise<void>((resolve) => void server.close(() => resolve())));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const toolServers = (rows: readonly object[]) => ({ TOOL_SERVERS: jsonFile('servers.json', { servers: rows }) });

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
    expect(found.get('identity: token')).toMatchObject({
      status: 'ok',
      detail: 'accepted; the issuer is that of provider default',
    });
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
    expect([failed, code]).toEqual([['identity default: keys'], 1]);
    expect(found.get('identity default: keys')).toMatchObject({ advice: expect.stringContaining('JWKS_URL') });
  });

  it('names an auth service whose metadata are of another issuer', async () => {
    const { failed, found } = await examine({ JWT_ISSUER: 'https://other.example.test' });
    expect(failed).toEqual(['auth service: metadata']);
    expect(found.get('auth service: metadata')?.detail).toContain('another issuer');
  });

  it('names a tool server that is down, and what another does not list', async () => {
    const upstream = await HttpUpstream.start({ tools: { echo } });
    const down = `http://127.0.0.1:${await freePort()}/mcp`;
    const rows = [httpRow(upstream.url, ['echo', 'gone']), httpRow(down, ['lost'], { name: 'down' })];
    const { code, found, failed } = await examine(toolServers(rows));
    expect([failed, code]).toEqual([['tool server down: list'], 1]);
    expect(found.get('tool server remote: tool gone')).toMatchObject({ status: 'warning' });
  });

  it('names each entry of a list that a tool server lists wrongly, with the reason', async () => {
    const list = [GOOD_TOOL, { name: 'odd', inputSchema: 5 }, { name: 'unused', inputSchema: 5 }, 'no tool'];
    const prompts = { prompts: [{ name: 'asks', arguments: 'none' }] };
    const server = await ScriptedServer.start({
      initialize: { result: { ...GREETING, capabilities: { tools: {}, prompts: {} } } },
      'tools/list': { result: { tools: list } },
      'prompts/list': { result: prompts },
    });
    const more = { prompts: { permission: 'basic', allow: ['*'] } };
    const { code, found } = await examine(toolServers([httpRow(server.url, ['good', 'odd'], more)]));
    const warnings = [...found].filter(([name, { status }]) => name.startsWith('tool server') && status === 'warning');
    expect(Object.fromEntries(warnings.map(([name, { detail }]) => [name, detail]))).toEqual({
      'tool server remote: tool odd': expect.stringContaining('inputSchema'),
      'tool server remote: tools/list': 'is not an object',
      'tool server remote: prompt asks': expect.stringContaining('arguments'),
    });
    expect(found.get('tool server remote: list')?.detail).toBe('1 usable tools, 0 prompts');
    expect(code).toBe(0);
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
