import { describe, expect, it } from '@jest/globals';
import { systemClock } from '../../src/lib/clock.ts';
import { InFlight } from '../../src/mcp/in-flight.ts';
import { ManualClock } from '../support/manual-clock.ts';

describe('MCP requests in flight', () => {
  it('are bounded for each user, and a released slot is free again', () => {
    const inFlight = new InFlight({ perUser: 2 });
    const leave = inFlight.enter('one');
    inFlight.enter('one');
    expect(() => inFlight.enter('one')).toThrow(expect.objectContaining({ code: 'RATE_LIMITED', retryAfterMs: 1_000 }));
    inFlight.enter('other');
    leave();
    leave();
    inFlight.enter('one');
    expect(() => inFlight.enter('one')).toThrow(expect.objectContaining({ code: 'RATE_LIMITED' }));
    expect(inFlight.total).toBe(3);
  });

  it('are bounded for the node, whose fullness is not the fault of a user', () => {
    const inFlight = new InFlight({ perNode: 2 });
    const leave = [inFlight.enter('one'), inFlight.enter('two')];
    expect(() => inFlight.enter('three')).toThrow(expect.objectContaining({ code: 'OVERLOADED' }));
    for (const one of leave) one();
    expect(inFlight.total).toBe(0);
    inFlight.enter('three');
  });

  it('are waited for no longer when the clock is set back meanwhile', async () => {
    const inFlight = new InFlight();
    inFlight.enter('one');
    const clock = new ManualClock();
    const drained = inFlight.drained(clock, 1_000);
    clock.set(-3_600_000);
    clock.advance(1_000);
    await drained;
  });

  it('are waited for by a node that stops, as long as it has time', async () => {
    const inFlight = new InFlight();
    const leave = inFlight.enter('one');
    let drained = false;
    const waiting = inFlight.drained(systemClock, 60_000).then(() => {
      drained = true;
    });
    // The wait ends by itself if its timeout is shorter than the request.
    await inFlight.drained(systemClock, 30);
    expect(drained).toBe(false);
    leave();
    await waiting;
    expect(drained).toBe(true);
  });
});
