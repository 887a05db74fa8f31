import { THREAD_MESSAGES } from '../events/user-log-writer.ts';
import { RUN_STATES } from '../jobs.ts';
import type { InputRequest, OpenInputRequest } from '../protocol/input.ts';
import type { Redis } from '../redis/client.ts';
import type { Keys } from '../redis/keys.ts';
import { literal, oneOf, text, tuple } from '../redis/replies.ts';
import { LuaScript } from '../redis/scripts.ts';

const readRun = LuaScript.load(
  'readRun-1',
  oneOf(tuple([literal(...RUN_STATES), text, text, text, text, text], text), tuple([literal('unknown')])),
);

/** The state of a run in Redis. */
export interface RunState {
  readonly status: (typeof RUN_STATES)[number];
  readonly requestId: string;
  readonly threadId: string;
  readonly agent: string;
  /** Milliseconds since the epoch; undefined before the end. */
  readonly endedAt: number | undefined;
  /** Answer of a completed run; null if the thread no longer contains it. */
  readonly answer: string | null;
  /** The input requests of a run that has not ended. */
  readonly inputs: readonly StoredInput[];
}

export interface StoredInput {
  readonly id: string;
  readonly request: InputRequest;
  readonly isOpen: boolean;
  /** Milliseconds since the epoch. */
  readonly expiresAt: number;
}

/** Reads the state of a run of the user; undefined if there is none. One round trip. @throws TollgateError OVERLOADED */
export async function readRunState(
  deps: { readonly redis: Redis; readonly keys: Keys },
  userId: string,
  runId: string,
): Promise<RunState | undefined> {
  const keys = deps.keys.user(userId);
  const reply = await readRun.run(deps.redis, [keys.run(runId)], [runId, keys.thread(''), THREAD_MESSAGES]);
  if (reply[0] === 'unknown') return undefined;
  const [status, requestId, threadId, endedAt, answer, agent, ...inputs] = reply;
  return {
    ...{ status, requestId, threadId, agent },
    endedAt: endedAt === '' ? undefined : Number(endedAt),
    answer: answer === '' ? null : (JSON.parse(answer) as { text: string }).text,
    inputs: inputs.map(parseInput),
  };
}

function parseInput(stored: string): StoredInput {
  const [, id = '', isOpen, expiresAt, request = ''] = /^(\S+) ([01]) (\d+) (.*)$/s.exec(stored) ?? [];
  return { id, request: JSON.parse(request), isOpen: isOpen === '1', expiresAt: Number(expiresAt) };
}

/** Returns the requests of a run without an answer, as its user sees them. */
export function openRequests({ inputs }: Pick<RunState, 'inputs'>): OpenInputRequest[] {
  return inputs.flatMap(({ id, request, isOpen, expiresAt }) => {
    return isOpen ? [{ input_id: id, ...request, expires_at: new Date(expiresAt).toISOString() }] : [];
  });
}
