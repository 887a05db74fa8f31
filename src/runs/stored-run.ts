import { type ToolCaller, toolCallerOf } from '../catalogue/permissions.ts';
import type { RunRequest } from '../jobs.ts';
import type { ClientTool } from '../protocol/client-tools.ts';

/** Prefix of the fields in a run's hash that contain tool outcomes. */
export const JOURNAL_PREFIX = 'tool:';
/** Prefix of the fields in a run's hash that contain model steps. */
export const STEP_PREFIX = 'step:';

/**
 * Prefix of the fields in a run's hash that contain input requests: the time of their expiry in milliseconds since the
 * epoch, a space, and the request as JSON.
 */
export const INPUT_PREFIX = 'input:';
/** Prefix of the fields in a run's hash that contain the answers to input requests. */
const ANSWER_PREFIX = 'answer:';

/** A run that a worker has claimed. */
export interface ClaimedRun {
  readonly userId: string;
  readonly runId: string;
  readonly threadId: string;
  readonly requestId: string;
  /** Connection that sent the request; it may have closed since. */
  readonly connectionId: string;
  readonly agent: string;
  readonly message: string;
  readonly transport: string;
  readonly caller: ToolCaller;
  /** Tools that the front end of the user executes. */
  readonly clientTools: readonly ClientTool[];
  /** Whether the session was degraded at the time of the request. */
  readonly degraded: boolean;
  /** Greater than the fencing token of every earlier claim of the run. */
  readonly fencingToken: number;
  /** The fencing token before this claim; a later one in Redis is that of another worker. */
  readonly previousToken: number;
  /** Number of events of the run that are already in the log. */
  readonly events: number;
  /** `seq` of the first event; 0 if there is none yet. */
  readonly firstSeq: number;
  /** Outcomes of tool calls that earlier workers completed, by tool call id. */
  readonly journal: ReadonlyMap<string, string>;
  /** Model steps that earlier workers completed, by the name of the journal entry (see `StepLog`). */
  readonly steps: ReadonlyMap<string, string>;
  /** Input requests of earlier claims, by their id (see `INPUT_PREFIX`). */
  readonly inputs: ReadonlyMap<string, string>;
  /** Answers to input requests (JSON), by the id of the request. */
  readonly answers: ReadonlyMap<string, string>;
  /** Milliseconds since the epoch, by Redis's clock. */
  readonly acceptedAt: number;
  /** Milliseconds from acceptance to the claim, by Redis's clock, without the time of waiting for input. */
  readonly waitedMs: number;
  readonly cancelRequested: boolean;
}

/** What Redis stores of an accepted run. */
export interface AcceptedRun
  extends Pick<ClaimedRun, 'userId' | 'runId' | 'threadId' | 'requestId' | 'connectionId' | 'agent' | 'message'> {
  readonly transport: string;
  /** JSON of the caller. */
  readonly caller: string;
  /** JSON of the tools of the front end; "" for none. */
  readonly clientTools: string;
}

/** @param agent name of the agent, also if the request names none */
export function acceptedRun(run: RunRequest, agent: string): AcceptedRun {
  const { identity, runId, threadId, requestId, connectionId, message, transport, degraded, clientTools } = run;
  const caller: StoredCaller = { ...toolCallerOf(identity), degraded };
  const ids = { userId: identity.userId, runId, threadId, requestId, connectionId };
  return { ...ids, agent, message, transport, caller: JSON.stringify(caller), clientTools: jsonOf(clientTools) };
}

/** Returns the accepted run behind a claim. */
export function acceptedAs(run: ClaimedRun): AcceptedRun {
  const caller: StoredCaller = { ...run.caller, degraded: run.degraded };
  return { ...run, caller: JSON.stringify(caller), clientTools: jsonOf(run.clientTools) };
}

function jsonOf(tools: readonly ClientTool[] = []): string {
  return tools.length === 0 ? '' : JSON.stringify(tools);
}

/** Returns the journal fields of the hash of a run, for a script. */
export function journalFields(run: Pick<ClaimedRun, 'journal' | 'steps' | 'inputs' | 'answers'>): string[] {
  const fields = (prefix: string, entries: ReadonlyMap<string, string>) => {
    return [...entries].flatMap(([name, value]) => [prefix + name, value]);
  };
  return [
    ...fields(JOURNAL_PREFIX, run.journal),
    ...fields(STEP_PREFIX, run.steps),
    ...fields(INPUT_PREFIX, run.inputs),
    ...fields(ANSWER_PREFIX, run.answers),
  ];
}

/** Returns the fields of a run's hash that do not change, for a script. */
export function storedFields(run: Omit<AcceptedRun, 'userId' | 'runId' | 'threadId'>): string[] {
  const { requestId, connectionId, transport, agent, message, caller, clientTools } = run;
  const fields = {
    ...{ request_id: requestId, connection_id: connectionId, transport, agent, message, caller },
    ...(clientTools === '' ? {} : { client_tools: clientTools }),
  };
  return Object.entries(fields).flat();
}

type StoredCaller = ToolCaller & Pick<ClaimedRun, 'degraded'>;

/** Returns the caller of a run from the field `caller` of its hash. */
export function parseCaller(json: string): Pick<ClaimedRun, 'caller' | 'degraded'> {
  const { degraded, ...caller }: StoredCaller = JSON.parse(json);
  return { caller, degraded };
}

/** The reply of the script `claimRun`. */
export interface ClaimReply {
  readonly userId: string;
  readonly runId: string;
  /** Field, value, … */
  readonly fields: readonly string[];
  /** The amount by which the claim increased the fencing token. */
  readonly step: number;
  /** Time of Redis, in ms. */
  readonly now: number;
  /** Milliseconds for which the run has waited for input. */
  readonly pausedMs: number;
}

export function parseRun({ userId, runId, fields: flat, step, now, pausedMs }: ClaimReply): ClaimedRun {
  const fields = new Map<string, string>();
  const journal = new Map<string, string>();
  const steps = new Map<string, string>();
  const inputs = new Map<string, string>();
  const answers = new Map<string, string>();
  const entriesOf = new Map([
    [JOURNAL_PREFIX, journal],
    [STEP_PREFIX, steps],
    [INPUT_PREFIX, inputs],
    [ANSWER_PREFIX, answers],
  ]);
  for (let i = 0; i < flat.length; i += 2) {
    const name = flat[i] ?? '';
    const prefixed = name.indexOf(':') + 1;
    const entries = prefixed === 0 ? undefined : entriesOf.get(name.slice(0, prefixed));
    if (entries) entries.set(name.slice(prefixed), flat[i + 1] ?? '');
    else fields.set(name, flat[i + 1] ?? '');
  }
  const field = (name: string) => fields.get(name) ?? '';
  const [fencingToken, acceptedAt] = [Number(field('epoch')), Number(field('accepted_at'))];
  return {
    userId,
    runId,
    threadId: field('thread_id'),
    requestId: field('request_id'),
    connectionId: field('connection_id'),
    agent: field('agent'),
    message: field('message'),
    transport: field('transport'),
    ...parseCaller(field('caller')),
    clientTools: JSON.parse(field('client_tools') || '[]'),
    fencingToken,
    previousToken: fencingToken - step,
    events: Number(field('events')),
    firstSeq: Number(field('first_seq')),
    journal,
    steps,
    inputs,
    answers,
    acceptedAt,
    waitedMs: now - acceptedAt - pausedMs,
    cancelRequested: field('cancel') === '1',
  };
}
