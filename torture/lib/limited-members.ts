import { setTimeout as delay } from 'node:timers/promises';
import type { Tollgate } from '../../packages/client/src/main.ts';
import { CallingClient, Lost, type Message } from '../../test/support/chaos/calling-client.ts';
import { endOf, openClient, TRANSPORTS } from './client-member.ts';
import { Member, type MemberDeps, type Outcome } from './member.ts';
import { recordedTransport } from './recorded-transport.ts';
import type { User } from './users.ts';

const REPLY_MS = 3_000;

/** Calls a tool more often than the plan of its user includes, one new key per call. */
export class QuotaMember extends Member {
  protected override readonly maxPauseMs: number = 700;
  readonly #client: Tollgate;

  constructor(deps: MemberDeps, user: User, transport: string) {
    super(deps, user, `${user.id}-${transport}`);
    const inner = TRANSPORTS[transport];
    if (!inner) throw new Error(`there is no transport ${transport}`);
    const recorded = recordedTransport(inner(), { recorder: deps.recorder, user: user.id, client: this.name });
    this.#client = openClient(this.url, user, recorded);
  }

  override close(): void {
    this.#client.close();
  }

  protected async next(): Promise<void> {
    if (this.#client.state === 'stopped') this.#client.connect();
    const key = this.newKey('tool');
    await this.operation('tool', { key }, async () => {
      const result = await this.#client.callTool('add', { key }, { idempotencyKey: key });
      return { t: 'ok', callId: result.tool_call_id, success: result.success };
    });
  }
}

/** Sends more messages than the plan of its user allows. */
export class ChattyMember extends Member {
  #client: CallingClient | undefined;

  constructor(deps: MemberDeps, user: User, number: number) {
    super(deps, user, `${user.id}-${number}`);
  }

  override close(): void {
    this.#client?.end();
  }

  protected async next(): Promise<void> {
    if (this.#client === undefined || this.#client.isOver) {
      const options = { transport: 'ws' as const, url: this.url, token: await this.user.token() };
      const opened = await CallingClient.open(options).catch((error: unknown) => {
        if (error instanceof Lost) return undefined;
        throw error;
      });
      this.#client = opened?.client;
      if (!opened) await delay(REPLY_MS / 10);
    }
    const client = this.#client;
    if (client) await this.operation('message', { key: this.newKey('message') }, () => this.#send(client));
  }

  async #send(client: CallingClient): Promise<Outcome> {
    const requestId = this.newKey('request');
    const isAnswer = ({ type, fields }: Message) => {
      return type === 'threads_list' || (type === 'error' && (fields.request_id === requestId || !fields.request_id));
    };
    const { type, fields } = await client.request('threads_list', { request_id: requestId }, isAnswer, REPLY_MS);
    if (type !== 'error') return { t: 'ok' };
    const code = String(fields.code);
    return { t: code === 'RATE_LIMITED' ? 'failed' : 'unknown', code };
  }
}

/** Creates threads, sends messages to them, and reads them. */
export class ThreadMember extends Member {
  protected override readonly maxPauseMs: number = 1_500;
  readonly #client: Tollgate;

  constructor(deps: MemberDeps, user: User) {
    super(deps, user, `${user.id}-threads`);
    const inner = TRANSPORTS.websocket;
    if (!inner) throw new Error('there is no transport websocket');
    const recorded = recordedTransport(inner(), { recorder: deps.recorder, user: user.id, client: this.name });
    this.#client = openClient(this.url, user, recorded);
  }

  override close(): void {
    this.#client.close();
  }

  protected async next(): Promise<void> {
    if (this.#client.state === 'stopped') this.#client.connect();
    const requestId = this.newKey('run');
    const thread = `thread_${requestId.replaceAll(/\W/g, '')}`;
    await this.operation('run', { key: requestId }, async (id) => {
      const run = this.#client.run('Hello', { requestId, thread });
      const { runId } = await run.accepted;
      this.deps.recorder.add({ t: 'accepted', id, runId });
      const end = await endOf(run);
      return end === undefined ? { t: 'unknown', code: 'NO_END', runId } : { t: 'ok', runId, end };
    });
    await this.operation('thread', { key: thread }, async () => {
      await this.#client.threads.history(thread);
      await this.#client.threads.list();
      return { t: 'ok' };
    });
  }
}
