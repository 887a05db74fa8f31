import { describe, expect, it } from '@jest/globals';
import { freshRequestId, runToEnd } from '../support/agent-runs.ts';
import { openClient, TRANSPORTS } from '../support/clients.ts';
import { nodeUrl } from '../support/nodes.ts';
import { mintToken } from '../support/tokens.ts';

describe('run_status', () => {
  it.each(TRANSPORTS)('returns the answer of a completed run, by run id and by request id: %s', async (transport) => {
    const client = await openClient({ transport, token: mintToken().token });
    const request_id = freshRequestId();
    const { runId: run_id, accepted, events } = await runToEnd(client, { request_id });
    const { final_response } = events.at(-1)?.fields ?? {};
    const state = {
      run_id,
      thread_id: accepted.fields.thread_id,
      status: 'completed',
      final_response,
      ended_at: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
    };
    client.send('run_status', { request_id });
    const byRequest = await client.waitFor(({ type }) => type === 'run_status');
    expect(byRequest.fields).toMatchObject({ ...state, request_id });
    const other = freshRequestId();
    client.send('run_status', { run_id, request_id: other });
    const byRun = await client.waitFor(({ type, fields }) => type === 'run_status' && fields.request_id === other);
    expect(byRun.fields).toMatchObject(state);
  });

  it('of a run of another user, or of none, is unknown, on every node', async () => {
    const owner = await openClient({ token: mintToken().token });
    const { runId: run_id } = await runToEnd(owner);
    const client = await openClient({ token: mintToken().token, url: nodeUrl(1) });
    client.send('run_status', { run_id, request_id: 'req_1' });
    const { fields } = await client.waitFor('run_status');
    expect(fields).toMatchObject({ run_id, request_id: 'req_1', status: 'unknown', thread_id: null });
    expect(fields).not.toHaveProperty('final_response');
  });

  it('without an id is FORMAT_ERROR', async () => {
    const client = await openClient({ token: mintToken().token });
    await client.welcome();
    client.send('run_status', {});
    expect((await client.waitFor('error')).fields).toMatchObject({ code: 'FORMAT_ERROR', field: 'run_id' });
  });
});
