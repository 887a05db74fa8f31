import { beforeAll, describe, expect, it } from '@jest/globals';
import { McpResources } from '../../src/mcp/mcp-resources.ts';
import type { Identity } from '../../src/protocol/identity.ts';
import { type Core, startCore } from '../support/core.ts';
import { requestStates } from '../support/mcp.ts';
import { until } from '../support/until.ts';
import { HttpUpstream } from '../support/upstreams/http-upstream.ts';
import { echo, type ServerScript } from '../support/upstreams/mcp-script.ts';
import { httpRow, upstreamNode } from '../support/upstreams/upstream-node.ts';

const CALLER = { userId: 'u', plan: 'one' } as Identity;
const { signal } = new AbortController();
const EVERYTHING = { permission: 'basic', allow: ['*'] };

let core: Core;

beforeAll(async () => {
  core = await startCore();
});

/** Returns the merged capabilities of two servers, in their order. */
async function capabilitiesOf(scripts: Readonly<Record<string, Omit<ServerScript, 'tools'>>>, may = () => true) {
  const upstreams: HttpUpstream[] = [];
  const rows: object[] = [];
  for (const [name, script] of Object.entries(scripts)) {
    const upstream = await HttpUpstream.start({ tools: { echo }, ...script });
    upstreams.push(upstream);
    rows.push(httpRow(upstream.url, ['echo'], { name, resources: EVERYTHING, prompts: EVERYTHING }));
  }
  const node = upstreamNode(core, rows as Record<string, unknown>[]);
  await until(() => node.upstreams.all.every(({ capabilities }) => capabilities.tools.size > 0), { timeoutMs: 15_000 });
  return {
    offers: new McpResources({ upstreams: node.upstreams, states: requestStates(), permissions: { has: may } }),
    upstreams,
  };
}

const requests = (upstreams: readonly HttpUpstream[], method: string) =>
  upstreams.map((one) => one.received(method).length);

describe('what several servers offer', () => {
  it('has a prompt under its name once, and with its server before it where the name is taken', async () => {
    const prompts = [{ name: 'greet' }];
    const { offers: capabilities, upstreams } = await capabilitiesOf({ first: { prompts }, second: { prompts } });
    expect(capabilities.prompts(CALLER).map(({ name }) => name)).toEqual(['greet', 'second__greet']);
    await capabilities.prompt(CALLER, { name: 'second__greet' }, signal);
    expect(requests(upstreams, 'prompts/get')).toEqual([0, 1]);
    expect(upstreams[1]?.received('prompts/get')[0]?.message.params).toMatchObject({ name: 'greet' });
    await capabilities.prompt(CALLER, { name: 'greet' }, signal);
    expect(requests(upstreams, 'prompts/get')).toEqual([1, 1]);
  });

  it('has a resource once, that of the first, and asks one after the other for what none of them lists', async () => {
    const resources = [{ uri: 'docs://one', name: 'One' }];
    const templates = [{ uriTemplate: 'docs://{page}', name: 'Pages' }];
    const { offers: capabilities, upstreams } = await capabilitiesOf({
      first: { resources },
      second: { resources, templates },
    });
    expect(capabilities.resources(CALLER)).toHaveLength(1);
    await capabilities.read(CALLER, { uri: 'docs://one' }, signal);
    expect(requests(upstreams, 'resources/read')).toEqual([1, 0]);
    await capabilities.read(CALLER, { uri: 'docs://two' }, signal);
    expect(requests(upstreams, 'resources/read')).toEqual([1, 1]);
    await expect(capabilities.read(CALLER, { uri: 'docs://missing' }, signal)).rejects.toMatchObject({
      data: { uri: 'docs://missing' },
    });
  });

  it('is invisible without the permission', async () => {
    const { offers: capabilities, upstreams } = await capabilitiesOf(
      { first: { prompts: [{ name: 'greet' }] } },
      () => false,
    );
    expect([capabilities.prompts(CALLER), capabilities.resources(CALLER), capabilities.templates(CALLER)]).toEqual([
      [],
      [],
      [],
    ]);
    await expect(capabilities.prompt(CALLER, { name: 'greet' }, signal)).rejects.toThrow('Prompt not found');
    expect(requests(upstreams, 'prompts/get')).toEqual([0]);
  });

  it('is reported as failed, not as missing, while its server fails', async () => {
    const { offers: capabilities, upstreams } = await capabilitiesOf({
      first: { resources: [{ uri: 'docs://one', name: 'One' }] },
    });
    await upstreams[0]?.close();
    await expect(capabilities.read(CALLER, { uri: 'docs://one' }, signal)).rejects.toMatchObject({
      code: 'TOOL_FAILED',
    });
    expect(capabilities.resources(CALLER)).toHaveLength(1);
  });

  it('completes nothing where its server completes nothing', async () => {
    const resources = [{ uri: 'docs://one', name: 'One' }];
    const templates = [{ uriTemplate: 'docs://{page}', name: 'Pages' }];
    const { offers: capabilities } = await capabilitiesOf({ first: { resources, templates } });
    const ref = { type: 'ref/resource' as const, uri: 'docs://{page}' };
    const completed = await capabilities.complete(CALLER, { ref, argument: { name: 'page', value: 't' } }, signal);
    expect(completed.completion.values).toEqual([]);
    const unknown = { ref: { ...ref, uri: 'docs://{other}' }, argument: { name: 'page', value: 't' } };
    await expect(capabilities.complete(CALLER, unknown, signal)).rejects.toMatchObject({
      data: { uri: 'docs://{other}' },
    });
  });
});
