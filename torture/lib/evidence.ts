import { setTimeout as delay } from 'node:timers/promises';
import { TERMINAL_EVENTS } from '../../src/protocol/messages.ts';
import { CallingClient, type Message } from '../../test/support/chaos/calling-client.ts';
import { until } from '../../test/support/until.ts';
import type { Deployment } from './deployment.ts';
import type { BilledRecord, LoggedEvent, Recorder, Resource } from './history.ts';
import type { Population } from './population.ts';
import { serviceTokens, type User } from './users.ts';

const READ_MS = 30_000;
const REQUEST_MS = 3_000;
const SAMPLE_MS = 200;
/** An interrupted run ends within 45 s, and its worker may have been killed twice. */
const BASE_LINE_MS = 90_000;
const LEDGER_MS = 30_000;
/** Longer than an input request lasts. */
const OPEN_RUN_MS = 45_000;
const OPEN_RUN_POLL_MS = 2_000;
const RECORDS_PER_PAGE = 1_000;

/** For all processes of a kind together. */
const SLACK: readonly (readonly [kind: string, slack: number])[] = [
  ['descriptors', 30],
  ['timers', 10],
  ['megabytes', 450],
];

type Fields = Readonly<Record<string, unknown>>;
export type BaseLine = ReadonlyMap<string, number>;

/** Reads the state of the deployment over its public interfaces, and records it. */
export class Evidence {
  readonly #deployment: Deployment;
  readonly #users: readonly User[];
  readonly #recorder: Recorder;
  /** Users whose threads are recorded: they have few messages per thread. */
  readonly #threaded: ReadonlySet<string>;
  readonly #limited: ReadonlySet<string>;
  readonly #serviceToken: () => Promise<string>;

  constructor(deployment: Deployment, { users, threaded, limits }: Population, recorder: Recorder) {
    this.#threaded = new Set(threaded);
    this.#limited = new Set(limits.flatMap(({ t, user }) => (t === 'messages' ? user : [])));
    this.#deployment = deployment;
    this.#users = users;
    this.#recorder = recorder;
    this.#serviceToken = serviceTokens(deployment.addresses);
  }

  /** Samples the connections of one user after the other until the signal. A node that does not answer is skipped. */
  async sampleCaps(signal: AbortSignal): Promise<void> {
    for (let at = 0; !signal.aborted; at++) {
      const user = this.#users[at % this.#users.length]?.id ?? '';
      const from = this.#recorder.now();
      const answer = await this.#get(`/v1/users/${user}/connections`, at).catch(() => undefined);
      if (answer) this.#recorder.add({ t: 'cap', user, from, connections: Number(answer.total) });
      await delay(SAMPLE_MS);
    }
  }

  /** Returns the resources in use: connections, runs and calls of all users, and runs in the queue. */
  async resources(): Promise<BaseLine> {
    const { queues } = (await this.#get('/v1/admin/queues')) as { queues: readonly Fields[] };
    const [runs = {}] = queues;
    const found = new Map([
      ['runs that wait in the queue', Number(runs.waiting)],
      ['runs that a worker executes', Number(runs.active)],
    ]);
    const add = (name: string, value: unknown) => found.set(name, (found.get(name) ?? 0) + Number(value));
    for (const { id } of this.#users) {
      add('connections', (await this.#get(`/v1/users/${id}/connections`)).total);
      const { usage } = (await this.#get(`/v1/admin/users/${id}`)) as { usage: UsageSummary | null };
      add('calls in flight', usage?.under_way.calls ?? 0);
      add('runs in flight', usage?.runs.in_flight.runs ?? 0);
    }
    for (const [kind, processes] of Object.entries(this.#measured())) {
      for (const { url } of processes) {
        const { descriptors, timers, megabytes } = await processFigures(url);
        add(`descriptors of ${kind}`, descriptors);
        add(`timers of ${kind}`, timers);
        add(`megabytes of ${kind}`, megabytes);
      }
    }
    return found;
  }

  #measured() {
    const { gateways, workers } = this.#deployment.addresses;
    return { gateways, workers };
  }

  /** Waits until every resource is back at its base line, and records the values in any case. */
  async recordResources(before: BaseLine, progress: (line: string) => void): Promise<void> {
    let now: BaseLine = new Map();
    let shown = '';
    const isBack = async () => {
      now = await this.resources();
      const above = [...now].filter(([name, value]) => value > (before.get(name) ?? 0) + slackOf(name));
      const text = above.map(([name, value]) => `${value} ${name}`).join(', ');
      if (text !== shown && text !== '') progress(`still in use: ${text}`);
      shown = text;
      return above.length === 0;
    };
    await until(isBack, { timeoutMs: BASE_LINE_MS, everyMs: 250 }).catch(() => undefined);
    for (const [name, after] of now) {
      const line: Resource = { t: 'resource', name, before: before.get(name) ?? 0, after, slack: slackOf(name) };
      this.#recorder.write(line);
    }
  }

  /** Records logs, charges, ledger and executions, when all is quiet. */
  async recordState(): Promise<void> {
    // A user who has sent too many messages could not read the log for a minute.
    for (const { id } of this.#users) if (this.#limited.has(id)) await this.#allowMessages(id);
    let named = 0;
    for (const user of this.#users) named += await this.#recordUser(user);
    let records: BilledRecord[] = [];
    const isComplete = async () => {
      records = await this.#ledger();
      return records.length >= named;
    };
    // Ingestion is asynchronous. What is missing after this time is a violation.
    await until(isComplete, { timeoutMs: LEDGER_MS, everyMs: 200 }).catch(() => undefined);
    this.#recorder.write({ t: 'ledger', records, verified: await this.#verified(records) });
    this.#recorder.write({ t: 'executions', keys: await this.#deployment.executions() });
  }

  /** @returns the number of usage records that the log names */
  async #recordUser(user: User, endAt = performance.now() + OPEN_RUN_MS): Promise<number> {
    const { id, token } = user;
    const events: LoggedEvent[] = [];
    const onMessage = ({ type, fields }: Message) => {
      if (typeof fields.event_id === 'string' && typeof fields.seq === 'number') events.push(loggedEvent(type, fields));
    };
    const [gateway] = this.#deployment.addresses.gateways;
    const options = { transport: 'ws' as const, url: gateway?.url ?? '', token: await token(), onMessage };
    const { client, welcome } = await CallingClient.open(options);
    try {
      const epoch = String(welcome.epoch);
      const isEnd = ({ type }: Message) => type === 'resumed' || type === 'resume_failed';
      const end = await client.request('resume', { after: 0, epoch }, isEnd, READ_MS);
      if (end.type !== 'resumed') throw new Error(`the log of ${id} cannot be read: ${JSON.stringify(end.fields)}`);
      // A run whose request was refused without memory can start late, and then wait for input until that expires.
      if (openRuns(events) > 0 && performance.now() < endAt) {
        client.end();
        await delay(OPEN_RUN_POLL_MS);
        return await this.#recordUser(user, endAt);
      }
      const summary = await client.request('usage_summary', {}, ({ type }) => type === 'usage_summary', READ_MS);
      const { this_month } = summary.fields as unknown as UsageSummary;
      this.#recorder.write({ t: 'log', user: id, epoch, events });
      if (this.#threaded.has(id)) await this.#recordThreads(id, client, events);
      this.#recorder.write({ t: 'usage', user: id, units: this_month.units, period: this_month.period });
      return new Set(events.flatMap(({ recordId }) => recordId ?? [])).size;
    } finally {
      client.end();
    }
  }

  /** Records the messages of every thread that the log names. */
  async #recordThreads(user: string, client: CallingClient, events: readonly LoggedEvent[]): Promise<void> {
    const threads: { id: string; messages: { role: string; runId: string | null }[] }[] = [];
    for (const id of new Set(events.flatMap(({ threadId }) => threadId ?? []))) {
      const isHistory = ({ type }: Message) => type === 'thread_history' || type === 'error';
      const { type, fields } = await client.request(
        'thread_history',
        { thread_id: id, limit: 100 },
        isHistory,
        READ_MS,
      );
      if (type === 'error') throw new Error(`thread ${id} of ${user} cannot be read: ${JSON.stringify(fields)}`);
      const messages = (fields.messages as readonly Fields[]).map(({ role, run_id }) => {
        return { role: String(role), runId: typeof run_id === 'string' ? run_id : null };
      });
      threads.push({ id, messages });
    }
    this.#recorder.write({ t: 'threads', user, threads });
  }

  async #ledger(): Promise<BilledRecord[]> {
    const records: BilledRecord[] = [];
    for (let cursor = ''; ; ) {
      const query = new URLSearchParams({ cursor, limit: String(RECORDS_PER_PAGE) });
      const page = await this.#get(`/v1/usage/records?${query}`);
      records.push(...(page.records as readonly Fields[]).map(billedRecord));
      if (page.has_more !== true) return records;
      cursor = String(page.next_cursor);
    }
  }

  /** Verifies hour after hour, from the first record on. */
  async #verified([first]: readonly BilledRecord[]): Promise<{ ok: boolean; checked: number; problem: unknown }> {
    let checked = 0;
    for (let from: unknown = first?.period ?? new Date().toISOString().slice(0, 'YYYY-MM-DDTHH'.length); ; ) {
      const part = await this.#get(`/v1/usage/verify?${new URLSearchParams({ from: String(from) })}`);
      checked += Number(part.checked_records);
      if (part.ok !== true || part.next === null) return { ok: part.ok === true, checked, problem: part.problem };
      from = part.next;
    }
  }

  async #allowMessages(user: string): Promise<void> {
    const [gateway] = this.#deployment.addresses.gateways;
    const headers = { authorization: `Bearer ${await this.#serviceToken()}`, 'content-type': 'application/json' };
    const init = { method: 'PUT', headers, body: '{"plan":"enterprise"}', signal: AbortSignal.timeout(REQUEST_MS) };
    const response = await fetch(`${gateway?.url}/v1/users/${user}/plan`, init);
    if (!response.ok) throw new Error(`the plan of ${user} was answered ${response.status}: ${await response.text()}`);
  }

  async #get(path: string, node = 0): Promise<Fields> {
    const { gateways } = this.#deployment.addresses;
    const headers = { authorization: `Bearer ${await this.#serviceToken()}` };
    const url = `${gateways[node % gateways.length]?.url}${path}`;
    const response = await fetch(url, { headers, signal: AbortSignal.timeout(REQUEST_MS) });
    if (!response.ok) throw new Error(`${path} was answered ${response.status}: ${await response.text()}`);
    return (await response.json()) as Fields;
  }
}

const isTerminal = (type: string) => TERMINAL_EVENTS.some((terminal) => terminal === type);

function openRuns(events: readonly LoggedEvent[]): number {
  const open = new Set<string | undefined>();
  for (const { type, runId } of events) {
    if (type === 'agent_started') open.add(runId);
    if (isTerminal(type)) open.delete(runId);
  }
  return open.size;
}

/** Figures of a process, from its own metrics. */
async function processFigures(url: string) {
  const response = await fetch(`${url}/metrics`, { signal: AbortSignal.timeout(REQUEST_MS) });
  const text = await response.text();
  const value = (series: string) =>
    Number(
      text
        .split('\n')
        .find((line) => line.startsWith(series))
        ?.split(' ')[1] ?? 0,
    );
  return {
    descriptors: value('tollgate_process_open_fds '),
    timers: value('tollgate_nodejs_active_resources{type="Timeout"} '),
    megabytes: Math.round(value('tollgate_process_resident_memory_bytes ') / 2 ** 20),
  };
}

/** What may remain in use: kept connections to upstreams and their timers, and the heap of a process that has worked. */
function slackOf(name: string): number {
  const [, slack = 0] = SLACK.find(([kind]) => name.startsWith(kind)) ?? [];
  return slack;
}

interface UsageSummary {
  readonly under_way: { readonly calls: number };
  readonly runs: { readonly in_flight: { readonly runs: number } };
  readonly this_month: { readonly period: string; readonly units: number };
}

function loggedEvent(type: string, fields: Fields): LoggedEvent {
  const text = (name: string) => (typeof fields[name] === 'string' ? String(fields[name]) : undefined);
  return {
    seq: Number(fields.seq),
    type,
    eventId: String(fields.event_id),
    user: String(fields.user_id),
    runId: text('run_id'),
    requestId: text('request_id'),
    callId: text('tool_call_id'),
    success: typeof fields.success === 'boolean' ? fields.success : undefined,
    recordId: text('usage_record_id'),
    threadId: text('thread_id'),
    inputId: text('input_id'),
    action: text('action'),
    toolName: text('tool_name'),
  };
}

function billedRecord(fields: Fields): BilledRecord {
  const text = (name: string) => (typeof fields[name] === 'string' ? String(fields[name]) : null);
  return {
    id: String(fields.id),
    sequence: Number(fields.sequence),
    user: String(fields.user_id),
    tool: String(fields.tool),
    status: String(fields.status),
    units: Number(fields.units),
    period: String(fields.period),
    runId: text('run_id'),
    key: text('idempotency_key'),
  };
}
