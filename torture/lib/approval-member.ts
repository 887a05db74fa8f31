import type { OpenTransport, Tollgate } from '../../packages/client/src/main.ts';
import { endOf, openClient, TRANSPORTS } from './client-member.ts';
import { Member, type MemberDeps, type Outcome } from './member.ts';
import { recordedTransport } from './recorded-transport.ts';
import type { User } from './users.ts';

const ACTIONS = ['accept', 'decline'] as const;
type Action = (typeof ACTIONS)[number];
interface Asked {
  readonly run_id: string;
  readonly input_id: string;
}

/** Starts runs that ask for an approval, and answers each twice at the same time, over two connections. */
export class ApprovalMember extends Member {
  readonly #transports: readonly OpenTransport[];
  readonly #clients: Tollgate[];

  constructor(deps: MemberDeps, user: User) {
    super(deps, user, user.id);
    this.#transports = ['websocket', 'socketio'].map((name) => {
      const inner = TRANSPORTS[name];
      if (!inner) throw new Error(`there is no transport ${name}`);
      return recordedTransport(inner(), { recorder: deps.recorder, user: user.id, client: `${this.name}-${name}` });
    });
    this.#clients = this.#transports.map((transport) => openClient(this.url, user, transport));
  }

  override close(): void {
    for (const client of this.#clients) client.close();
  }

  protected async next(): Promise<void> {
    for (const [at, transport] of this.#transports.entries()) {
      if (this.#clients[at]?.state === 'stopped') this.#clients[at] = openClient(this.url, this.user, transport);
    }
    const [first, second] = this.#clients;
    if (!first || !second) return;
    const requestId = this.newKey('ask');
    await this.operation('ask', { key: requestId }, async (id) => {
      const run = first.run(`Approve ${requestId}`, { requestId, agent: 'modelled' });
      const { runId } = await run.accepted;
      this.deps.recorder.add({ t: 'accepted', id, runId });
      const ended = endOf(run);
      const answered = this.#answer(run, [first, second]);
      const end = await ended;
      await answered;
      return end === undefined ? { t: 'unknown', code: 'NO_END', runId } : { t: 'ok', runId, end };
    });
  }

  async #answer(run: ReturnType<Tollgate['run']>, clients: readonly Tollgate[]): Promise<void> {
    try {
      for await (const event of run) {
        if (event.type !== 'input_requested') continue;
        const asked = event as unknown as Asked;
        await Promise.all(clients.map((client) => this.#answerOnce(client, asked)));
      }
    } catch {
      // The end of the run has the reason.
    }
  }

  async #answerOnce(client: Tollgate, asked: Asked): Promise<Outcome> {
    const action: Action = ACTIONS[this.random.below(2)] ?? 'accept';
    return this.operation('answer', { key: asked.input_id, value: action }, async () => {
      const { repeated } = await client.respond(asked, { action });
      return { t: 'ok', repeated };
    });
  }
}
