import { setTimeout as delay } from 'node:timers/promises';
import type { OpenTransport, Tollgate } from '../../packages/client/src/main.ts';
import { endOf, openClient, TRANSPORTS } from './client-member.ts';
import { Member, type MemberDeps, REQUEST_MS, RUN_MS } from './member.ts';
import { recordedTransport } from './recorded-transport.ts';
import type { User } from './users.ts';

const RETRY_MS = 300;
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
      // The events of a run that does not end would be awaited for ever.
      await Promise.race([answered, delay(2 * REQUEST_MS, undefined, { ref: false })]);
      return end === undefined ? { t: 'unknown', code: 'NO_END', runId } : { t: 'ok', runId, end };
    });
  }

  async #answer(run: ReturnType<Tollgate['run']>, clients: readonly Tollgate[]): Promise<void> {
    try {
      for await (const event of run) {
        if (event.type !== 'input_requested') continue;
        const asked = event as unknown as Asked;
        await Promise.all(clients.map((client) => this.#answerUntilKnown(client, asked)));
      }
    } catch {
      // The end of the run has the reason.
    }
  }

  /** Repeats the answer while its outcome is unknown: without one, the run would wait until its request expires. */
  async #answerUntilKnown(client: Tollgate, asked: Asked): Promise<void> {
    const action: Action = ACTIONS[this.random.below(2)] ?? 'accept';
    const deadline = performance.now() + RUN_MS;
    while (performance.now() < deadline) {
      const { t } = await this.operation('answer', { key: asked.input_id, value: action }, async () => {
        const { repeated } = await client.respond(asked, { action });
        return { t: 'ok', repeated };
      });
      if (t !== 'unknown') return;
      await delay(RETRY_MS);
    }
  }
}
