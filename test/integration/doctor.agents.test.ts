import { dirname } from 'node:path';
import { describe, expect, it } from '@jest/globals';
import { freePort } from '../../scripts/lib/ports.ts';
import { A2aServer } from '../support/a2a-server.ts';
import { AgentServer } from '../support/agent-server.ts';
import { examine, jsonFile } from '../support/doctor.ts';
import { closeAfter } from '../support/open-resources.ts';

const KEY = 'key-of-the-agent-server';
const reference = (name: string) => `\${${name}}`;

/** A server that accepts one key, and answers every request with the same status. */
async function start(status: number): Promise<AgentServer> {
  const server = await AgentServer.start();
  closeAfter('test', () => server.close());
  server.serve = ({ headers }, response) => {
    response.writeHead(headers.authorization === `Bearer ${KEY}` ? status : 401).end('{}');
  };
  return server;
}

/** Examines agents.json with these rows, by their name. */
function examineAgents(rows: Readonly<Record<string, object>>) {
  const headers = { authorization: `Bearer ${reference('AGENT_KEY')}` };
  const agents = Object.entries(rows).map(([name, row]) => ({ name, description: name, tools: [], headers, ...row }));
  const file = jsonFile('agents.json', { default: agents[0]?.name, agents });
  return examine({
    CATALOGUE_DIR: dirname(file),
    AGENT_KEY: KEY,
    AGENT_SECRET: 'secret-of-the-agent',
    WRONG_KEY: 'wrong',
  });
}

describe('the doctor, for agents on other servers', () => {
  it('starts nothing at an agent of any kind, and finds it ready', async () => {
    const [lines, events, stored, a2a] = [
      await start(401),
      await start(422),
      await start(404),
      await A2aServer.start(),
    ];
    closeAfter('test', () => a2a.server.close());
    const { found, failed, output } = await examineAgents({
      lines: { kind: 'http', url: lines.url, secret: reference('AGENT_SECRET') },
      events: { kind: 'agui', url: events.url },
      stored: { kind: 'responses', url: stored.url },
      tasks: { kind: 'a2a', url: `${a2a.server.origin}/rpc` },
    });
    expect(failed.filter((name) => name.startsWith('agent'))).toEqual([]);
    for (const name of ['lines', 'events', 'stored', 'tasks']) {
      expect(found.get(`agent ${name}: request`)).toMatchObject({ status: 'ok' });
    }
    expect(found.get('agent tasks: agent card')).toMatchObject({ status: 'ok' });
    expect([lines, events, stored].map(({ requests }) => requests.length)).toEqual([1, 1, 1]);
    expect(a2a.methods).toEqual(['GetTask']);
    expect(output).not.toContain(KEY);
    expect(output).not.toContain('secret-of-the-agent');
  });

  it('names what is wrong: the credential, the server, the protocol, an unchecked signature', async () => {
    const [events, open, other] = [await start(422), await start(200), await start(404)];
    open.serve = (_request, response) => void response.writeHead(200).end('{}');
    const headers = { authorization: `Bearer ${reference('WRONG_KEY')}` };
    const { found } = await examineAgents({
      refused: { kind: 'agui', url: events.url, headers },
      away: { kind: 'agui', url: `http://127.0.0.1:${await freePort()}/` },
      other: { kind: 'a2a', url: other.url },
      open: { kind: 'http', url: open.url, secret: reference('AGENT_SECRET') },
      unset: { kind: 'http', url: open.url, secret: reference('UNSET_SECRET') },
    });
    expect(found.get('agent refused: request')).toMatchObject({
      status: 'failed',
      advice: expect.stringContaining('headers'),
    });
    expect(found.get('agent away: request')).toMatchObject({
      status: 'failed',
      detail: expect.stringContaining('ECONNREFUSED'),
    });
    expect(found.get('agent other: request')).toMatchObject({ status: 'failed' });
    expect(found.get('agent open: request')).toMatchObject({
      status: 'warning',
      advice: expect.stringContaining('signature'),
    });
    expect(found.get('agent unset: settings')).toMatchObject({ status: 'failed' });
  });
});
