import { spawn } from 'node:child_process';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { LedgerFeed, type LedgerPosition } from '../../packages/client/src/ledger.ts';
import { Tollgate } from '../../packages/client/src/tollgate.ts';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { billedRecords } from '../support/ledger.ts';
import { closeAfter } from '../support/open-resources.ts';
import { describeWith, PYTHON_CLIENTS } from '../support/programs.ts';
import { upTo } from '../support/runs.ts';
import { useStack } from '../support/stack.ts';
import { mintToken, serviceToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const RECORDS = 7;
const processes = useStack({ gateways: 1, workers: 1 });
let token: string;
let url: string;
/** A gateway whose pages pass through a proxy that changes them. */
let proxyUrl: string;
let change: (headers: Headers, text: string) => string;

beforeAll(async () => {
  const { addresses } = processes();
  url = addresses.gateways[0]?.url ?? '';
  token = await serviceToken('usage:read', { stack: addresses });
  const user = mintToken({ plan: 'developer' }, { stack: addresses });
  const client = new Tollgate({ url, getToken: () => user.token });
  for (let call = 0; call < RECORDS; call++) await client.callTool('analyze_workload');
  client.close();
  await until(async () => (await billedRecords(undefined, addresses)).length === RECORDS);
  const server = createServer(async (request, response) => {
    const page = await fetch(url + request.url, { headers: request.headers as Record<string, string> });
    const headers = new Headers(page.headers);
    const text = change(headers, await page.text());
    response.setHeaders(
      new Map(['x-next-cursor', 'x-has-more', 'x-gap-detected'].map((n) => [n, `${headers.get(n)}`])),
    );
    response.end(text);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  closeAfter('file', () => {
    server.close();
    server.closeAllConnections();
  });
  const address = server.address();
  proxyUrl = `http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}`;
});

interface Pulled {
  readonly sequences: number[];
  readonly position?: LedgerPosition;
  readonly error?: string;
}

async function pullInTypeScript(from: string, limit: number, position?: LedgerPosition): Promise<Pulled> {
  const sequences: number[] = [];
  let last = position;
  try {
    for await (const page of new LedgerFeed({ url: from, getToken: () => token }).pull({ from: last, limit })) {
      sequences.push(...page.records.map(({ sequence }) => sequence));
      last = page.position;
    }
  } catch (error) {
    return { sequences, error: String((error as { code?: unknown }).code) };
  }
  return { sequences, position: last };
}

async function pullInPython(from: string, limit: number, position?: LedgerPosition): Promise<Pulled> {
  const script = join(PROJECT_ROOT, 'packages/python/tests/pull_ledger.py');
  const stored = position ? [position.cursor ?? '', position.lastHash ?? ''] : [];
  const child = spawn(PYTHON_CLIENTS.command, ['-B', script, from, token, String(limit), ...stored]);
  closeAfter('test', () => void child.kill('SIGKILL'));
  let output = '';
  child.stdout.on('data', (chunk) => (output += chunk));
  await new Promise((resolve) => child.once('close', resolve));
  const { sequences, error, cursor, last_hash } = JSON.parse(output);
  return error ? { sequences, error } : { sequences, position: { cursor, lastHash: last_hash } };
}

function itPulls(pull: typeof pullInTypeScript): void {
  it('reads every record once, in pages, and continues from a stored position', async () => {
    const first = await pull(url, 3);
    expect(first.sequences).toEqual(upTo(RECORDS));
    const again = await pull(url, 3, first.position);
    expect(again.sequences).toEqual([]);
  });

  it.each([
    ['a changed record', '"units":', '"units":1'],
    ['a missing record', /^.*"sequence":3,.*\n/m, ''],
  ])('reports %s as LEDGER_CHAIN_BROKEN', async (_, from, to) => {
    change = (_headers, text) => text.replace(from, to);
    expect((await pull(proxyUrl, 5)).error).toBe('LEDGER_CHAIN_BROKEN');
  });

  it('reports a gap as LEDGER_GAP', async () => {
    change = (headers, text) => {
      headers.set('x-gap-detected', 'true');
      return text;
    };
    expect(await pull(proxyUrl, 5)).toEqual({ sequences: [], error: 'LEDGER_GAP' });
  });
}

describe('the ledger feed of the TypeScript client', () => itPulls(pullInTypeScript));
describeWith(PYTHON_CLIENTS, 'the ledger feed of the Python client', () => itPulls(pullInPython));
