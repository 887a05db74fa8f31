import * as current from '@ag-ui/client';
import { EventSchemas } from '@ag-ui/core/schemas';
import { afterEach, beforeEach, describe, expect, it, jest } from '@jest/globals';
import * as older from 'ag-ui-client-0.0.59';
import { from, type Observable } from 'rxjs';
import { AgUiRun } from '../../src/frontends/ag-ui/ag-ui-run.ts';
import type { AgUiEvent, HistoryMessage } from '../../src/frontends/ag-ui/events.ts';
import type { RunEvent } from '../../src/frontends/run-events.ts';
import type { Fields } from '../../src/protocol/messages.ts';
import { scriptedRun } from '../support/front-ends/scripted-run.ts';

const USER: HistoryMessage = { id: 'message_1', role: 'user', content: 'Compare A and B' };
const NAMES = { threadId: 'thread_1', runId: 'run_of_client', tollgateRunId: 'run_1' };
/** What each generation of clients declares in its input. */
const GENERATIONS = [
  { version: '1.0.0', protocolVersion: '1.0', newClient: currentClient },
  { version: '0.0.59', protocolVersion: undefined, newClient: olderClient },
] as const;

interface Client {
  readonly messages: readonly { readonly id: string; readonly content?: unknown; readonly metadata?: unknown }[];
  readonly state: unknown;
  /** Receives the answer of a first request. */
  run(events: readonly AgUiEvent[]): Promise<void>;
  /** Receives the answer after a reconnection. */
  connect(events: readonly AgUiEvent[]): Promise<void>;
}

function currentClient(messages: readonly HistoryMessage[]): Client {
  class Agent extends current.AbstractAgent {
    events: readonly AgUiEvent[] = [];
    run(): Observable<current.BaseEvent> {
      return from(this.events as unknown as current.BaseEvent[]);
    }
    override connect(): Observable<current.BaseEvent> {
      return this.run();
    }
  }
  return clientOf(new Agent({ initialMessages: messages as current.Message[] }));
}

function olderClient(messages: readonly HistoryMessage[]): Client {
  class Agent extends older.AbstractAgent {
    events: readonly AgUiEvent[] = [];
    run(): Observable<older.BaseEvent> {
      return from(this.events as unknown as older.BaseEvent[]);
    }
    override connect(): Observable<older.BaseEvent> {
      return this.run();
    }
  }
  return clientOf(new Agent({ initialMessages: messages as older.Message[] }));
}

function clientOf(agent: (current.AbstractAgent | older.AbstractAgent) & { events: readonly AgUiEvent[] }): Client {
  return {
    get messages() {
      return agent.messages;
    },
    get state() {
      return agent.state;
    },
    async run(events) {
      // A copy, as over a network: 0.0.59 changes the messages of a snapshot in place.
      agent.events = structuredClone(events);
      await agent.runAgent();
    },
    async connect(events) {
      agent.events = structuredClone(events);
      await agent.connectAgent();
    },
  };
}

/** The long form (`npm run test:front-ends`) tries three heads of the log per cut, the short form one. */
const ALL_HEADS = process.env.FRONT_ENDS !== undefined;

/** The events of each log event. */
function mapped(log: readonly RunEvent[], protocolVersion?: string): (readonly AgUiEvent[])[] {
  const run = new AgUiRun({ ...NAMES, protocolVersion }, [USER]);
  return log.map((event) => run.add(event));
}

/** What a client receives that comes back when the log has `head` events, until the run has ended. */
function afterReconnect(log: readonly RunEvent[], head: number, protocolVersion?: string): AgUiEvent[] {
  const run = new AgUiRun({ ...NAMES, protocolVersion }, [USER]);
  for (const event of log.slice(0, head)) run.add(event);
  return [...run.prelude(), ...log.slice(head).flatMap((event) => run.add(event))];
}

// The clients of both generations warn about what they drop or cannot place, instead of failing.
const warnings: unknown[][] = [];
beforeEach(() => {
  warnings.length = 0;
  jest.spyOn(console, 'warn').mockImplementation((...args) => void warnings.push(args));
});
afterEach(() => {
  jest.restoreAllMocks();
  expect(warnings).toEqual([]);
});

describe('the AG-UI events of a run', () => {
  it('fit the schemas of AG-UI 1.0, live and after a reconnection', () => {
    const log = scriptedRun();
    const all = [...mapped(log, '1.0').flat(), ...log.flatMap((_, head) => afterReconnect(log, head + 1, '1.0'))];
    const wrong = all.filter((event) => !EventSchemas.safeParse(event).success);
    expect(wrong).toEqual([]);
    expect(all.length).toBeGreaterThan(300);
  });

  it('end with the position in the log, also on the messages that they build', async () => {
    const log = scriptedRun();
    for (const [index, events] of mapped(log).entries()) {
      const { seq, epoch } = log[index] ?? {};
      expect(events.at(-1)?.metadata?.tollgate).toMatchObject({ seq, epoch });
    }
    const client = currentClient([USER]);
    await client.run(mapped(log).flat());
    expect(client.messages.find(({ content }) => content === 'B is the answer.')).toMatchObject({
      metadata: { tollgate: { epoch: 'epoch_1', seq: 49, usage_record_id: 'use_3' } },
    });
  });

  it.each(GENERATIONS)('build the conversation in the client $version', async ({ newClient, protocolVersion }) => {
    const client = newClient([USER]);
    await client.run(mapped(scriptedRun(), protocolVersion).flat());
    const plain = client.messages.map((message) => {
      const { metadata: _metadata, ...rest } = message;
      return rest;
    });
    const toolCalls = [
      { id: 'call_a', type: 'function', function: { name: 'first', arguments: '{"of":"A"}' } },
      { id: 'call_b', type: 'function', function: { name: 'second', arguments: '{"of":"B"}' } },
    ];
    expect(plain).toMatchObject([
      USER,
      { role: 'reasoning', content: 'Both are needed. I call them at once.' },
      { role: 'assistant', content: 'Let me look.', toolCalls },
      { role: 'tool', toolCallId: 'call_b', content: '{"b":2}' },
      { role: 'tool', toolCallId: 'call_a', content: '{"error":{"code":"PERMISSION_DENIED"}}' },
      { role: 'reasoning', content: 'B has won.' },
      { role: 'assistant', content: 'B is the answer.' },
      { role: 'reasoning', content: 'A was refused.' },
    ]);
  });

  it.each(GENERATIONS)(
    'bring the client $version to the same state from every cut and head',
    async ({ newClient, protocolVersion }) => {
      const log = scriptedRun();
      const perEvent = mapped(log, protocolVersion);
      const live = perEvent.flat();
      const uncut = newClient([USER]);
      await uncut.run(live);
      const different: string[] = [];
      let cases = 0;
      const compare = (client: Client, name: string) => {
        cases++;
        if (JSON.stringify(sorted(client.messages)) !== JSON.stringify(sorted(uncut.messages))) different.push(name);
      };
      for (let cut = 0; cut < live.length; cut++) {
        const oldest = eventAt(perEvent, cut);
        const heads = [...new Set([oldest, Math.min(oldest + 1, log.length), log.length])];
        for (const head of ALL_HEADS ? heads : heads.slice(cut % heads.length).slice(0, 1)) {
          const client = newClient([USER]);
          await client.run(live.slice(0, cut));
          await client.connect(afterReconnect(log, head, protocolVersion));
          compare(client, `cut ${cut}, head ${head}`);
        }
      }
      // Head 0: the run waits in the queue.
      for (let head = 0; head <= log.length; head++) {
        const reloaded = newClient([]);
        await reloaded.connect(afterReconnect(log, head, protocolVersion));
        compare(reloaded, `reloaded, head ${head}`);
      }
      expect(different).toEqual([]);
      expect(cases).toBeGreaterThanOrEqual(ALL_HEADS ? 3 * live.length : live.length + log.length);
    },
  );

  it.each([
    ['agent_failed', { error: { code: 'RUN_TIMEOUT', message: 'The run took too long.', retryable: true } }],
    ['agent_cancelled', {}],
  ])('close what is open before %s', (type, fields) => {
    for (const { protocolVersion } of GENERATIONS) {
      const log = scriptedRun([type, fields]);
      // Without its last thought, the run ends while text and reasoning are open.
      const events = mapped(log.toSpliced(-2, 1), protocolVersion).at(-1) ?? [];
      const types = events.map((event) => event.type);
      const end = type === 'agent_failed' ? 'RUN_ERROR' : 'RUN_FINISHED';
      expect(types).toEqual(['TEXT_MESSAGE_END', 'REASONING_MESSAGE_END', 'REASONING_END', end]);
    }
  });

  it('report a failure with its code', () => {
    const error = { code: 'RUN_TIMEOUT', message: 'The run took too long.', retryable: true };
    const events = mapped(scriptedRun(['agent_failed', { error }]));
    expect(events.at(-1)?.at(-1)).toMatchObject({
      type: 'RUN_ERROR',
      code: 'RUN_TIMEOUT',
      message: 'The run took too long.',
      metadata: { tollgate: { error } },
    });
  });

  it('name an outcome only for clients that declare a protocol version', () => {
    const end = (protocolVersion?: string) =>
      mapped(scriptedRun(['agent_cancelled', {}]), protocolVersion)
        .at(-1)
        ?.at(-1);
    expect(end('1.0')).toMatchObject({ type: 'RUN_FINISHED', outcome: { type: 'cancelled' } });
    expect(end()).toMatchObject({ type: 'RUN_FINISHED' });
    expect(end()).not.toHaveProperty('outcome');
  });

  it('report the billed tokens with the end', () => {
    expect(mapped(scriptedRun()).at(-1)?.at(-1)).toMatchObject({
      type: 'RUN_FINISHED',
      usage: [{ model: 'm', inputTokens: 20, outputTokens: 5, totalTokens: 25 }],
    });
  });

  it('contain the answer of an agent whose thoughts are no part of it', async () => {
    const answer = { final_response: 'Something else.' };
    const client = currentClient([USER]);
    await client.run(mapped(scriptedRun(['agent_completed', answer])).flat());
    expect(client.messages.at(-1)).toMatchObject({ id: 'run_1-answer', role: 'assistant', content: 'Something else.' });
  });

  it.each(GENERATIONS)('restore state and activities of a remote agent in the client $version', async (generation) => {
    const { newClient, protocolVersion } = generation;
    const activity = { activity_id: 'plan', activity_type: 'PLAN' };
    const remote: [string, Fields][] = [
      ['agent_state', { snapshot: { items: [] } }],
      ['agent_activity', { ...activity, content: { steps: ['one'] } }],
      ['agent_thinking', { thought: '', step: 4, replaces_step: 3 }],
      ['agent_state', { delta: [{ op: 'add', path: '/items/-', value: 1 }] }],
      ['agent_activity', { ...activity, patch: [{ op: 'add', path: '/steps/-', value: 'two' }] }],
      ['agent_completed', { final_response: '' }],
    ];
    const log = scriptedRun(...remote);
    const live = mapped(log, protocolVersion).flat();
    expect(live.filter((event) => !EventSchemas.safeParse(event).success)).toEqual([]);
    for (let head = log.length - remote.length; head <= log.length; head++) {
      const client = newClient([USER]);
      // The client has received everything, which the gateway does not know.
      await client.run(live);
      await client.connect(afterReconnect(log, head, protocolVersion));
      expect(client.state).toEqual({ items: [1] });
      const activities = client.messages.filter(({ id }) => id === 'run_1-plan');
      expect(activities).toMatchObject([
        { role: 'activity', activityType: 'PLAN', content: { steps: ['one', 'two'] } },
      ]);
      expect(client.messages.some(({ content }) => content === 'B is the answer.')).toBe(false);
    }
  });

  it('leave out changes of a remote agent that are no JSON patch, and wrap content that is no object', () => {
    const odd: [string, Fields][] = [
      ['agent_state', { delta: [{ op: 'grow', path: '/a' }] }],
      ['agent_activity', { activity_id: 'a', activity_type: 'custom', patch: [null] }],
      ['agent_activity', { activity_id: 'a', activity_type: 'custom', content: 'text' }],
    ];
    const events = mapped(scriptedRun(...odd), '1.0').slice(-odd.length);
    expect(events).toMatchObject([[], [], [{ type: 'ACTIVITY_SNAPSHOT', content: { value: 'text' } }]]);
  });

  it('skip events of types that they do not know', () => {
    const run = new AgUiRun({ ...NAMES, protocolVersion: '1.0' }, []);
    const [started] = scriptedRun();
    if (!started) throw new Error('the script has events');
    expect(run.add({ ...started, type: 'of_a_later_version' })).toEqual([]);
  });
});

/** Number of log events whose protocol events include the first `cut` ones; at least 1. */
function eventAt(perEvent: readonly (readonly AgUiEvent[])[], cut: number): number {
  let number = 1;
  for (let sum = perEvent[0]?.length ?? 0; sum < cut; number++) sum += perEvent[number]?.length ?? 0;
  return number;
}

/** Clients order the keys of metadata and of messages differently, depending on how a message arrived. */
function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, each]) => [key, sorted(each)]),
  );
}
