import type { Fields } from '../../protocol/messages.ts';
import type { RemoteTurn, ReportedTokens } from '../../runs/remote-log.ts';
import { asList, asNumber, asObject, asText } from '../model/json.ts';
import { RemoteFault } from './fault.ts';
import { tokensOf } from './turn.ts';

/** Position in a task. */
export interface TaskCursor {
  readonly task: string;
  /** Characters of each artifact that are in the log. */
  readonly artifacts: Readonly<Record<string, number>>;
  /** The latest interruption for which the user was asked. */
  readonly ask?: { readonly number: number; readonly mark: string };
}

/** What an interrupted task waits for. */
export interface Interruption {
  readonly reason: 'input_required' | 'auth_required';
  /** Differs from that of the next interruption. */
  readonly mark: string;
  readonly text: string;
}

const MAX_ARTIFACTS = 1_000;
const MAX_ID = 256;
const MAX_MARK = 512;
const TERMINAL = new Set(['COMPLETED', 'FAILED', 'CANCELED', 'REJECTED']);

/** The state of one task: what the agent sent, and how much of it is in the log. */
export class A2aTask {
  id: string | undefined;
  /** The name that the agent gives to the conversation. */
  contextId: string | undefined;
  /** Undefined while the agent works. */
  interruption: Interruption | undefined;
  ask: TaskCursor['ask'];
  /** Without the prefix `TASK_STATE_`. */
  state = 'SUBMITTED';
  readonly #remote: RemoteTurn;
  readonly #texts = new Map<string, string>();
  readonly #written: Map<string, number>;
  #statusText = '';
  #current: string | undefined;
  /** Text of the status that was appended last, so that a snapshot does not repeat it. */
  #activity: string | undefined;
  #tokens: ReportedTokens | undefined;

  constructor(remote: RemoteTurn, cursor: TaskCursor | undefined) {
    this.#remote = remote;
    this.id = cursor?.task;
    this.ask = cursor?.ask;
    this.#written = new Map(Object.entries(cursor?.artifacts ?? {}));
  }

  get tokens(): ReportedTokens | undefined {
    return this.#tokens;
  }

  get isTerminal(): boolean {
    return TERMINAL.has(this.state);
  }

  /** Text of all artifacts; without any, that of the last status. */
  get text(): string {
    return [...this.#texts.values()].filter((text) => text !== '').join('\n\n') || this.#statusText;
  }

  get cursor(): TaskCursor | undefined {
    if (this.id === undefined) return undefined;
    const asked = this.ask ? { ask: this.ask } : {};
    return { task: this.id, artifacts: Object.fromEntries(this.#written), ...asked };
  }

  /** Begins the ask for the present interruption, before the user is asked. */
  async begin(ask: NonNullable<TaskCursor['ask']>): Promise<void> {
    this.ask = ask;
    await this.#remote.save(this.cursor);
  }

  /** The text of an interruption is no part of the answer. */
  answered(): void {
    this.#statusText = '';
    this.interruption = undefined;
  }

  /** Takes over a snapshot, and appends what the log lacks of it. @throws RemoteFault */
  async snapshot(task: Fields): Promise<void> {
    await this.#identify(task.id);
    this.contextId = asText(task.contextId)?.slice(0, MAX_ID);
    for (const artifact of asList(task.artifacts)) await this.#artifact(asObject(artifact) ?? {}, 'snapshot');
    await this.#status(task.status, task.metadata);
  }

  /** @throws RemoteFault */
  async artifactUpdate({ taskId, artifact, append }: Fields): Promise<void> {
    await this.#identify(taskId);
    await this.#artifact(asObject(artifact) ?? {}, append === true ? 'append' : 'replace');
  }

  /** @throws RemoteFault for a state that ends the run */
  async statusUpdate({ taskId, status, metadata }: Fields): Promise<void> {
    await this.#identify(taskId);
    await this.#status(status, metadata);
  }

  /** Stores the id of the task as soon as it is known. */
  async #identify(id: unknown): Promise<void> {
    if (this.id !== undefined) return;
    if (typeof id !== 'string' || id === '' || id.length > MAX_ID) throw new RemoteFault('invalid', 'a task has no id');
    this.id = id;
    await this.#remote.save(this.cursor);
  }

  async #artifact({ artifactId, parts, name }: Fields, how: 'append' | 'replace' | 'snapshot'): Promise<void> {
    const id = asText(artifactId)?.slice(0, MAX_ID) ?? '';
    if (this.#texts.size >= MAX_ARTIFACTS) throw new RemoteFault('too_large', `more than ${MAX_ARTIFACTS} artifacts`);
    const text = (how === 'append' ? (this.#texts.get(id) ?? '') : '') + textOf(parts);
    this.#texts.set(id, text);
    const written = this.#written.get(id) ?? 0;
    // A snapshot can lack text that the agent is still saving; an update with a shorter text replaces the earlier one.
    const isReplaced = how === 'replace' && text.length < written;
    if (id !== this.#current || isReplaced) this.#remote.endMessage(this.cursor);
    this.#current = id;
    const missing = text.slice(isReplaced ? 0 : written);
    this.#written.set(id, isReplaced ? text.length : Math.max(written, text.length));
    if (missing !== '') await this.#remote.text(missing, this.cursor);
    const others = otherContent(parts);
    if (others.length === 0) return;
    const content = { name: asText(name)?.slice(0, MAX_ID) ?? null, parts: others };
    const activity = { activity_id: id.slice(0, 128), activity_type: 'artifact', content };
    await this.#remote.event('agent_activity', activity, this.cursor);
  }

  async #status(value: unknown, metadata: unknown): Promise<void> {
    const status = asObject(value) ?? {};
    const before = this.state;
    this.state = (asText(status.state) ?? 'UNSPECIFIED').replace(/^TASK_STATE_/, '');
    const message = asObject(status.message);
    const usage = [asObject(metadata), asObject(message?.metadata)].map((one) => tokensOf(one?.usage));
    this.#tokens = usage.find((tokens) => tokens !== undefined) ?? this.#tokens;
    const text = textOf(message?.parts);
    if (text !== '') this.#statusText = text;
    const details = { tokens: this.#tokens };
    switch (this.state) {
      case 'FAILED':
      case 'REJECTED':
        throw new RemoteFault('error', `the task was ${this.state.toLowerCase()}`, {
          ...details,
          agentCode: this.state,
        });
      case 'CANCELED':
        throw new RemoteFault('cancelled', 'the task was cancelled', details);
      case 'INPUT_REQUIRED':
      case 'AUTH_REQUIRED': {
        const reason = this.state === 'INPUT_REQUIRED' ? 'input_required' : 'auth_required';
        const mark = `${asText(status.timestamp) ?? ''} ${asText(message?.messageId) ?? ''} ${text}`.slice(0, MAX_MARK);
        this.interruption = { reason, mark, text };
        return;
      }
      default:
        this.interruption = undefined;
        // The last status is the answer, or adds nothing to it.
        if (this.isTerminal || text === '' || (before === this.state && text === this.#activity)) return;
        this.#activity = text;
        await this.#remote.event('agent_activity', this.#statusActivity(text), this.cursor);
    }
  }

  #statusActivity(text: string): Fields {
    const content = { state: this.state.toLowerCase(), text };
    return { activity_id: this.id?.slice(0, 128) ?? '', activity_type: 'status', content };
  }
}

/** Returns the text of the parts of a message or artifact. */
export function textOf(parts: unknown): string {
  return asList(parts)
    .map((part) => asText(asObject(part)?.text) ?? '')
    .join('');
}

/** Returns data and references to files. Bytes become their size: they belong into a file, not into the log. */
function otherContent(parts: unknown): Fields[] {
  return asList(parts).flatMap((value): Fields[] => {
    const { text, raw, ...part } = asObject(value) ?? {};
    if (raw !== undefined) return [{ ...part, bytes: Math.floor((asText(raw)?.length ?? 0) * 0.75) }];
    return text === undefined && (part.data !== undefined || part.url !== undefined) ? [part] : [];
  });
}

/** @throws RemoteFault not_resumable for a position of another kind of agent */
export function taskCursorOf(stored: unknown): TaskCursor {
  const { task, artifacts, ask } = asObject(stored) ?? {};
  if (typeof task !== 'string') throw new RemoteFault('not_resumable', 'the stored position is not that of a task');
  const counts = Object.entries(asObject(artifacts) ?? {}).map(([id, count]) => [id, asNumber(count) ?? 0] as const);
  const { number, mark } = asObject(ask) ?? {};
  const asked = typeof number === 'number' && typeof mark === 'string' ? { ask: { number, mark } } : {};
  return { task, artifacts: Object.fromEntries(counts), ...asked };
}
