import { describe, expect, it } from '@jest/globals';
import { countRoundTrips } from '../../bench/round-trips.ts';

describe('Redis', () => {
  it('gets two flights per connect, three with a ticket, at most one per message, two per tool call, one per three events', async () => {
    const { counts } = await countRoundTrips({ repetitions: 5 });
    expect(counts).toMatchObject({
      firstConnect: 2,
      socketIoConnect: 2,
      inBandAuth: 2,
      ticketConnect: 3,
      ticketPurchase: 2,
      furtherConnect: 1,
      ping: 1,
      agentRequest: 1,
      agentCancel: 1,
      runStatus: 1,
      toolCall: 2,
      usageSummary: 1,
      // Counted in advance in the batch of an earlier message.
      toolsList: 0,
      threadsList: 1,
      threadHistory: 1,
      resume: 1,
      // A run with one tool call has six events in two appends.
      appendedEvent: 1 / 3,
      // One per slice of the interval; in an interval this short there are two.
      renewalOfThreeUsers: 2,
    });
  }, 60_000);
});
