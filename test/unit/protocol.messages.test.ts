import { describe, expect, it } from '@jest/globals';
import {
  CLIENT_MESSAGE_NAMES,
  CLIENT_MESSAGES,
  type ClientMessageType,
  clientMessageType,
  DURABLE_EVENTS,
  isTerminalEvent,
  TERMINAL_EVENTS,
  TRANSIENT_EVENTS,
} from '../../src/protocol/messages.ts';

const TYPES = Object.keys(CLIENT_MESSAGES) as ClientMessageType[];

describe('the table of messages', () => {
  it('has no name twice, aliases included', () => {
    const all = TYPES.flatMap((type) => [type, ...CLIENT_MESSAGES[type].aliases]);
    expect(new Set(all).size).toBe(all.length);
    expect([...CLIENT_MESSAGE_NAMES].sort()).toEqual([...all].sort());
  });

  it.each([
    ['authenticate', 'auth'],
    ['start_agent', 'agent_request'],
    ['user_message', 'agent_request'],
    ['chat_message', 'agent_request'],
    ['chat', 'agent_request'],
    ['stop_agent', 'agent_cancel'],
  ])('understands %s as %s', (alias, type) => {
    expect(clientMessageType(alias)).toBe(type);
  });

  it.each(['', 'Ping', 'constructor', '__proto__', 'toString', 'agent_started', ' ping'])(
    'knows no message %j',
    (name) => {
      expect(clientMessageType(name)).toBeUndefined();
    },
  );

  it('allows only ping, heartbeat and the two that authenticate before authentication', () => {
    const open = TYPES.filter((type) => CLIENT_MESSAGES[type].access === 'anyone');
    expect(open.sort()).toEqual(['auth', 'heartbeat', 'ping', 'service_auth']);
  });

  it('has a request_id in every message that is answered on demand', () => {
    const withoutOne = ['ping', 'heartbeat', 'auth', 'service_auth', 'token_refresh'];
    for (const type of TYPES.filter((one) => !withoutOne.includes(one))) {
      expect(Object.keys(CLIENT_MESSAGES[type].fields.shape)).toContain('request_id');
    }
  });
});

describe('the fields of messages', () => {
  it.each([
    ['ping', { timestamp: {} }],
    ['tool_call', { tool: 'list_agents', request_id: '\ud83d' }],
    ['tool_call', { tool: 'list_agents', idempotency_key: 'half \udc00' }],
    ['agent_request', { message: 'Hello', request_id: '\ud83d' }],
    ['ping', { timestamp: 'x'.repeat(65) }],
    ['auth', { token: 5 }],
    ['service_auth', { token: 5 }],
    ['service_auth', { service_id: ['billing'] }],
    ['service_auth', { context: 'x'.repeat(257) }],
    ['token_refresh', { token: '' }],
    ['agent_request', {}],
    ['agent_request', { message: '' }],
    ['agent_request', { message: ['a'] }],
    ['agent_request', { message: 'a', thread_id: 'a b' }],
    ['agent_request', { message: 'a', thread_id: 'a:b' }],
    ['agent_request', { message: 'a', thread_id: 'x'.repeat(65) }],
    ['agent_request', { message: 'a', request_id: 'x'.repeat(129) }],
    ['agent_request', { message: 'a', request_id: 5 }],
    ['agent_cancel', {}],
    ['run_status', {}],
    ['run_status', { run_id: '' }],
    ['run_status', { run_id: 'x'.repeat(65) }],
    ['thread_history', { thread_id: 't', limit: 0 }],
    ['thread_history', { thread_id: 't', limit: 101 }],
    ['thread_history', { thread_id: 't', limit: 1.5 }],
    ['resume', { after: 1 }],
    ['resume', { epoch: 'e' }],
    ['resume', { after: -1, epoch: 'e' }],
    ['resume', { after: 1.5, epoch: 'e' }],
    ['resume', { after: 2 ** 53, epoch: 'e' }],
    ['resume', { after: '1', epoch: 'e' }],
  ] as const)('of %s are not %j', (type, fields) => {
    expect(CLIENT_MESSAGES[type].fields.safeParse(fields).success).toBe(false);
  });

  it('of a message are its words, whatever was cut off in the middle of a character', () => {
    const { message } = CLIENT_MESSAGES.agent_request.fields.parse({ message: 'cut \ud83d' });
    expect(message).toBe('cut \ufffd');
  });

  it('of a page of history have a default length', () => {
    expect(CLIENT_MESSAGES.thread_history.fields.parse({ thread_id: 't' })).toEqual({ thread_id: 't', limit: 50 });
  });
});

describe('the events of the server', () => {
  it('are durable or transient, never both', () => {
    const both = DURABLE_EVENTS.filter((type) => (TRANSIENT_EVENTS as readonly string[]).includes(type));
    expect(both).toEqual([]);
    expect(new Set(DURABLE_EVENTS).size).toBe(DURABLE_EVENTS.length);
    expect(new Set(TRANSIENT_EVENTS).size).toBe(TRANSIENT_EVENTS.length);
  });

  it('end a run with one of three, which are durable', () => {
    expect(TERMINAL_EVENTS.filter(isTerminalEvent)).toEqual(['agent_completed', 'agent_failed', 'agent_cancelled']);
    expect(DURABLE_EVENTS).toEqual(expect.arrayContaining([...TERMINAL_EVENTS]));
    expect(isTerminalEvent('agent_started')).toBe(false);
  });

  it('keep away from the names that Socket.IO reserves', () => {
    const reserved = ['connect', 'connect_error', 'disconnect', 'disconnecting', 'newListener', 'removeListener'];
    const names: readonly string[] = [...DURABLE_EVENTS, ...TRANSIENT_EVENTS, ...CLIENT_MESSAGE_NAMES];
    expect(names.filter((name) => reserved.includes(name))).toEqual([]);
  });
});
