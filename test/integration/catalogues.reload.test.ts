import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from '@jest/globals';
import { planFile, toolFile } from '../support/catalogues.ts';
import { openClient } from '../support/clients.ts';
import { nodeUrl } from '../support/nodes.ts';
import { useStack } from '../support/stack.ts';
import { mintToken, serviceToken } from '../support/tokens.ts';
import { callTool } from '../support/tool-calls.ts';
import { until } from '../support/until.ts';

const folder = mkdtempSync(join(tmpdir(), 'tollgate-config-'));
afterAll(() => rmSync(folder, { recursive: true }));

function write(name: 'plans' | 'tools', content: unknown): void {
  writeFileSync(join(folder, `${name}.json`), typeof content === 'string' ? content : JSON.stringify(content));
}

/** The plans of the product, with these allowances for the plan pro. */
const withAllowances = (allowances: object) => {
  return { ...planFile, plans: { ...planFile.plans, pro: { ...planFile.plans.pro, allowances } } };
};

write('plans', planFile);
write('tools', toolFile);
const processes = useStack({ gateways: 2, workers: 1, env: { CATALOGUE_DIR: folder } });

const metrics = async (url: string) => (await fetch(`${url}/metrics`)).text();
const reloads = async (url: string, result: string) => {
  const found = new RegExp(`tollgate_catalogue_reloads_total\\{result="${result}"\\} (\\d+)`).exec(await metrics(url));
  return Number(found?.[1] ?? 0);
};

async function reload(scope = 'admin'): Promise<{ status: number; body: Record<string, unknown> }> {
  const token = await serviceToken(scope, { stack: processes().addresses });
  const url = `${nodeUrl(0, processes().addresses)}/v1/config/reload`;
  const response = await fetch(url, { method: 'POST', headers: { authorization: `Bearer ${token}` } });
  return { status: response.status, body: (await response.json()) as Record<string, unknown> };
}

/** Returns the daily allowance of a tool for a fresh user of the plan pro, as reported by each node. */
async function allowances(): Promise<unknown[]> {
  const { addresses } = processes();
  return Promise.all(
    addresses.gateways.map(async ({ url }) => {
      const client = await openClient({ url, token: mintToken({ plan: 'pro' }, { stack: addresses }).token });
      const { fields } = await callTool(client, 'list_agents');
      await client.close();
      return (fields.rate_limit_status as { limit: unknown }).limit;
    }),
  );
}

describe('plans and tools', () => {
  it('that an operator reloads on one node change on every node and worker, on live connections too', async () => {
    const { addresses } = processes();
    const live = await openClient({
      url: nodeUrl(1, addresses),
      token: mintToken({ plan: 'pro' }, { stack: addresses }).token,
    });
    expect((await callTool(live, 'list_agents')).fields.rate_limit_status).toMatchObject({ limit: 1_000 });
    const workerBefore = await reloads(addresses.workers[0]?.url ?? '', 'ok');
    write('plans', withAllowances({ list_agents: 7 }));
    expect(await reload()).toMatchObject({ status: 200, body: { reloaded: true, version: expect.any(String) } });
    await until(async () => (await allowances()).every((limit) => limit === 7), { timeoutMs: 5_000 });
    expect((await callTool(live, 'list_agents')).fields.rate_limit_status).toMatchObject({ limit: 7, used: 2 });
    await until(async () => (await reloads(addresses.workers[0]?.url ?? '', 'ok')) > workerBefore, {
      timeoutMs: 5_000,
    });
  });

  it('with a mistake are refused with file, line and field, and change nothing anywhere', async () => {
    const before = await allowances();
    write('plans', `\n${JSON.stringify(withAllowances({ rm: 1 }))}`);
    expect(await reload()).toEqual({
      status: 400,
      body: {
        error: expect.objectContaining({
          code: 'FORMAT_ERROR',
          mistakes: [{ file: 'plans.json', line: 2, field: 'plans.pro.allowances.rm', message: expect.any(String) }],
        }),
      },
    });
    expect(await allowances()).toEqual(before);
  });

  it('are read again on SIGHUP by the process that gets it, which ends none of them', async () => {
    write('plans', withAllowances({ list_agents: 9 }));
    const all = [...processes().gateways, ...processes().workers, processes().auth];
    for (const { pid } of all) process.kill(pid ?? 0, 'SIGHUP');
    await until(async () => (await allowances()).every((limit) => limit === 9), { timeoutMs: 5_000 });
    expect(all.every(({ running }) => running)).toBe(true);
    write('tools', '{ "tools": [] ');
    const url = nodeUrl(0, processes().addresses);
    const failures = await reloads(url, 'failed');
    process.kill(processes().gateways[0]?.pid ?? 0, 'SIGHUP');
    await until(async () => (await reloads(url, 'failed')) > failures, { timeoutMs: 5_000 });
    expect(await allowances()).toEqual([9, 9]);
    write('tools', toolFile);
  });

  it('are reloaded by operators alone', async () => {
    expect(await reload('usage:read')).toMatchObject({ status: 403, body: { error: { code: 'PERMISSION_DENIED' } } });
    const response = await fetch(`${nodeUrl(0, processes().addresses)}/v1/config/reload`, { method: 'POST' });
    expect(response.status).toBe(401);
  });
});
