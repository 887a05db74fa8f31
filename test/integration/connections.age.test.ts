import { describe, expect, it } from '@jest/globals';
import { openClient, TRANSPORTS } from '../support/clients.ts';
import { nodeUrl } from '../support/nodes.ts';
import { useStack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';

describe('a connection that has reached its age', () => {
  const stack = useStack({ gateways: 2, workers: 0, env: { MAX_CONNECTION_AGE_SECONDS: '2' } });

  it.each(TRANSPORTS)('over %s is asked to come back, and resumes on another node', async (transport) => {
    const of = stack().addresses;
    const { token } = mintToken({}, { stack: of });
    const old = await openClient({ transport, url: nodeUrl(0, of), token });
    const { epoch, seq } = await old.welcome();
    const { fields } = await old.waitFor('server_draining');
    expect(fields).toMatchObject({ retry_after_ms: 0 });
    const expected = transport === 'ws' ? { code: 1012, reason: 'SERVER_DRAINING' } : { reason: 'transport close' };
    expect(await old.closed).toMatchObject(expected);
    const next = await openClient({ transport, url: nodeUrl(1, of), token });
    await next.welcome();
    next.send('resume', { after: seq, epoch });
    expect((await next.waitFor('resumed')).fields).toMatchObject({ epoch, to: seq });
  });
});
