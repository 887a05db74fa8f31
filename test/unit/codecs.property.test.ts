import { AbstractAgent, type BaseEvent, type Message } from '@ag-ui/client';
import { afterEach, beforeEach, describe, expect, it, jest } from '@jest/globals';
import fc from 'fast-check';
import { from } from 'rxjs';
import { AgUiRun } from '../../src/frontends/ag-ui/ag-ui-run.ts';
import type { AgUiEvent, HistoryMessage } from '../../src/frontends/ag-ui/events.ts';
import type { RunEvent } from '../../src/frontends/run-events.ts';
import type { Clock } from '../../src/lib/clock.ts';
import { LocalLimiter } from '../../src/limits/local-limiter.ts';
import { envelopeDialect, flatDialect, jsonRpcDialect } from '../../src/protocol/dialects.ts';
import { isWithinJsonBounds } from '../../src/protocol/json-bounds.ts';
import { decodeCursor, encodeCursor } from '../../src/usage/ledger/feed-cursor.ts';

/** Raise it for a long run. */
const RUNS = { numRuns: Number(process.env.FUZZ_RUNS ?? 60) };

const hash = fc.stringMatching(/^[0-9a-f]{16}$/);
const fields = fc.dictionary(fc.string({ minLength: 1, maxLength: 8 }), fc.jsonValue({ maxDepth: 3 })).map((record) => {
  const { type: _type, payload: _payload, jsonrpc: _jsonrpc, __proto__: _proto, ...rest } = record;
  return JSON.parse(JSON.stringify(rest)) as Record<string, unknown>;
});

describe('a cursor of the usage feed', () => {
  it('is decoded to the position that it was made of, and any other text to none', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }), hash, fc.nat(30), (sequence, of, at) => {
        const cursor = encodeCursor({ sequence, hash: of });
        expect(decodeCursor(cursor)).toEqual({ sequence, hash: of });
        expect(decodeCursor(cursor.slice(0, -1))).toBeUndefined();
        expect(decodeCursor(`${cursor.slice(0, at)}=${cursor.slice(at)}`)).toBeUndefined();
      }),
      RUNS,
    );
  });

  it('is refused from the sequence 2^53 on, where numbers are not exact', () => {
    const cursorOf = (sequence: string) => Buffer.from(`u1.${sequence}.0123456789abcdef`).toString('base64url');
    expect(decodeCursor(cursorOf('9007199254740991'))?.sequence).toBe(Number.MAX_SAFE_INTEGER);
    expect(decodeCursor(cursorOf('9007199254740992'))).toBeUndefined();
  });
});

describe('a message', () => {
  it('is decoded in each dialect to the name and fields with which it was written', () => {
    const name = fc.string({ minLength: 1, maxLength: 16 });
    fc.assert(
      fc.property(name, fields, fc.oneof(fc.string(), fc.integer()), (type, given, id) => {
        const flat = flatDialect.decode(JSON.stringify({ ...given, type }));
        const envelope = envelopeDialect.decode(JSON.stringify({ type, payload: given }));
        const rpc = jsonRpcDialect.decode(JSON.stringify({ jsonrpc: '2.0', id, method: type, params: given }));
        for (const message of [flat, envelope, rpc]) expect(message).toMatchObject({ name: type, fields: given });
        expect(rpc.replyTo).toEqual({ rpcId: id });
      }),
      RUNS,
    );
  });
});

/** The scan of the text, by recursion over the value. */
function extentOf(value: unknown): { depth: number; values: number } {
  if (typeof value !== 'object' || value === null) return { depth: 0, values: 0 };
  const inner = Object.values(value).map(extentOf);
  const commas = Math.max(0, inner.length - 1);
  return {
    depth: 1 + Math.max(0, ...inner.map(({ depth }) => depth)),
    values: 1 + commas + inner.reduce((sum, { values }) => sum + values, 0),
  };
}

describe('the bounds of JSON', () => {
  it('are exact in depth and in number of values, whatever the strings contain', () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 6 }), fc.constantFrom(undefined, 2), (value, space) => {
        const text = JSON.stringify(value, null, space);
        const { depth, values } = extentOf(value);
        expect(isWithinJsonBounds(text, { maxDepth: depth, maxValues: values + 1 })).toBe(true);
        if (depth > 0) expect(isWithinJsonBounds(text, { maxDepth: depth - 1, maxValues: values + 1 })).toBe(false);
        expect(isWithinJsonBounds(text, { maxDepth: depth, maxValues: values })).toBe(false);
      }),
      RUNS,
    );
  });
});

describe('the local fallback limiter', () => {
  const WINDOW_MS = 60_000;

  it('grants exactly the share in each window, and forgets no grant that Redis has to count', () => {
    const step = fc.record({ user: fc.constantFrom('a', 'b'), afterMs: fc.integer({ min: 0, max: 40_000 }) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), fc.integer({ min: 1, max: 5 }), (steps, share) => {
        let now = 1_000_000;
        const clock = { now: () => now } as Clock;
        const limiter = new LocalLimiter({ clock }, { windowMs: WINDOW_MS });
        /** The current windows. */
        const granted = new Map<string, { count: number; start: number }>();
        for (const { user, afterMs } of steps) {
          now += afterMs;
          const window = granted.get(user);
          const isOver = !window || now >= window.start + WINDOW_MS;
          const current = isOver ? { count: 0, start: now } : window;
          const refusalMs = limiter.refusalMs(user, share);
          expect(refusalMs > 0).toBe(current.count >= share);
          expect(refusalMs).toBeLessThanOrEqual(WINDOW_MS);
          if (refusalMs > 0) continue;
          limiter.grant(user);
          granted.set(user, { ...current, count: current.count + 1 });
          const own = limiter.uncounted.find(({ key }) => key === user);
          expect(own?.messages).toBe(current.count + 1);
        }
      }),
      RUNS,
    );
  });
});

const USER: HistoryMessage = { id: 'message_1', role: 'user', content: 'Hello' };

class Agent extends AbstractAgent {
  events: readonly AgUiEvent[] = [];
  run() {
    return from(structuredClone(this.events) as unknown as BaseEvent[]);
  }
  override connect() {
    return this.run();
  }
}

/** What the client of AG-UI makes of the events. */
async function messagesOf(events: readonly AgUiEvent[], reconnects: boolean): Promise<unknown> {
  const agent = new Agent({ initialMessages: [USER] as Message[] });
  agent.events = events;
  await (reconnects ? agent.connectAgent() : agent.runAgent());
  return agent.messages;
}

type Row = readonly [type: string, fields: Record<string, unknown>];

/** A run of several steps: text, reasoning, and calls that complete in any order. */
const rows: fc.Arbitrary<readonly Row[]> = fc
  .array(
    fc.record({
      thoughts: fc.array(fc.string({ minLength: 1, maxLength: 6 }), { maxLength: 3 }),
      reasoning: fc.array(fc.string({ minLength: 1, maxLength: 6 }), { maxLength: 2 }),
      calls: fc.integer({ min: 0, max: 3 }),
      reversed: fc.boolean(),
    }),
    { minLength: 1, maxLength: 4 },
  )
  .map((steps) =>
    steps.flatMap(({ thoughts, reasoning, calls, reversed }, at): Row[] => {
      const ids = Array.from({ length: calls }, (_, index) => `call_${at}_${index}`);
      const step = at + 1;
      return [
        ...reasoning.map((text): Row => ['agent_reasoning', { reasoning: text, step }]),
        ...thoughts.map((thought): Row => ['agent_thinking', { thought, step }]),
        ...ids.map((id): Row => ['tool_executing', { tool_name: 'count', tool_call_id: id, arguments: { at } }]),
        ...(reversed ? ids.toReversed() : ids).map(
          (id): Row => ['tool_completed', { tool_name: 'count', tool_call_id: id, success: true, result: { at } }],
        ),
      ];
    }),
  );

function logOf(events: readonly Row[]): RunEvent[] {
  const all: Row[] = [['agent_started', { message: 'Hello' }], ...events, ['agent_completed', { final_response: '' }]];
  return all.map(([type, own], at) => {
    const timestamp = new Date(1_700_000_000_000 + at).toISOString();
    return { type, seq: at + 1, epoch: 'epoch_1', fields: { ...own, run_id: 'run_1', timestamp } };
  });
}

describe('the messages of AG-UI clients', () => {
  beforeEach(() => {
    jest.spyOn(console, 'warn').mockImplementation(() => {});
  });
  afterEach(() => {
    jest.restoreAllMocks();
  });

  it('are the same after a reconnection at any event of any run', async () => {
    const names = { threadId: 'thread_1', runId: 'run_of_client', tollgateRunId: 'run_1', protocolVersion: '1.0' };
    await fc.assert(
      fc.asyncProperty(rows, fc.nat(), async (events, cut) => {
        const log = logOf(events);
        const live = new AgUiRun(names, [USER]);
        const complete = await messagesOf(
          log.flatMap((event) => live.add(event)),
          false,
        );
        const again = new AgUiRun(names, [USER]);
        const head = cut % (log.length + 1);
        for (const event of log.slice(0, head)) again.add(event);
        const resumed = [...again.prelude(), ...log.slice(head).flatMap((event) => again.add(event))];
        expect(await messagesOf(resumed, true)).toEqual(complete);
      }),
      RUNS,
    );
  });
});
