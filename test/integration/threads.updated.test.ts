import { describe, expect, it } from '@jest/globals';
import { openClient, TRANSPORTS } from '../support/clients.ts';
import { nodeUrl } from '../support/nodes.ts';
import { mintToken } from '../support/tokens.ts';
import { callTool } from '../support/tool-calls.ts';

describe.each(TRANSPORTS)('a thread that is made over %s', (transport) => {
  it('reaches every connection of the user once, in the order of the log, and can be replayed', async () => {
    const { token, userId } = mintToken({ plan: 'pro' });
    const [maker, other] = await Promise.all(
      [0, 1].map((node) => openClient({ transport, url: nodeUrl(node), token })),
    );
    if (!maker || !other) throw new Error('two clients');
    const [{ epoch }] = await Promise.all([maker.welcome(), other.welcome()]);
    const call = () => callTool(maker, 'create_thread', { title: 'Plans  of\nours' }, { idempotency_key: 'once' });
    const { fields: made } = await call();
    expect((await call()).fields).toMatchObject({ repeated: true });
    for (const client of [maker, other]) {
      await client.waitFor('tool_completed');
      expect(client.events.filter(({ type }) => type === 'thread_updated').map(({ fields }) => fields)).toEqual([
        {
          event_id: expect.stringMatching(/^evt_/),
          seq: 2,
          user_id: userId,
          thread_id: (made.result as { thread_id: string }).thread_id,
          title: 'Plans of ours',
          created_at: expect.stringMatching(/Z$/),
          updated_at: expect.stringMatching(/Z$/),
          timestamp: expect.stringMatching(/Z$/),
        },
      ]);
    }
    const later = await openClient({ transport, url: nodeUrl(2), token });
    await later.welcome();
    later.send('resume', { after: 1, epoch });
    expect((await later.waitFor('thread_updated')).fields).toMatchObject({ seq: 2 });
  });
});
