import { freshRequestId } from '../agent-runs.ts';
import { openClient, type TestClient } from '../clients.ts';
import type { StackAddresses } from '../stack.ts';
import { mintToken } from '../tokens.ts';

/** A tool call whose success a client received. */
export interface Acknowledged {
  readonly userId: string;
  readonly callId: string;
  readonly recordId: string;
  readonly key: string;
  /** `performance.now()` */
  readonly at: number;
}

/** Observations of all clients of a chaos test. */
export class SeenLosses {
  readonly acknowledged: Acknowledged[] = [];
  readonly refusals = new Map<string, number>();
  connectionsLost = 0;
  connectionsRefused = 0;
  /** Number of `resume_failed` messages that clients received. */
  replayGaps = 0;

  count(code: string): void {
    this.refusals.set(code, (this.refusals.get(code) ?? 0) + 1);
  }
}

/**
 * Timeout of an answer. A call whose process died is answered by the sweep seconds later, and the caller does not wait
 * for that.
 */
const ANSWER_MS = 3_000;
const AGAIN_MS = 100;
const PAUSE_MS = 20;

/**
 * A user who makes billed tool calls one after the other, each under its own key, and repeats refused ones. When its
 * connection ends, it connects to the next node.
 */
export class AcknowledgedCaller {
  readonly userId: string;
  readonly #urls: readonly string[];
  readonly #token: string;
  readonly #sights: SeenLosses;
  #client: TestClient | undefined;
  #attempt: number;

  constructor(of: StackAddresses, sights: SeenLosses, number: number) {
    const { token, userId } = mintToken({ plan: 'enterprise' }, { stack: of, expiresInSeconds: 7_200 });
    this.userId = userId;
    this.#token = token;
    this.#urls = of.gateways.map(({ url }) => url);
    this.#sights = sights;
    this.#attempt = number;
  }

  async work(signal: AbortSignal): Promise<void> {
    for (let number = 0; !signal.aborted; number++) {
      await this.#call(`${this.userId}_${number}`, signal);
      await pause(PAUSE_MS);
    }
    this.#noteLosses();
    await this.#client?.close();
  }

  async #call(key: string, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const client = await this.#connected();
      const answer = client && (await this.#request(client, key).catch(() => undefined));
      if (client && !answer) return this.#sights.count('no answer');
      if (answer?.type === 'tool_result' && answer.fields.success !== true) {
        // The sweep ended an interrupted call this way; its key has an outcome.
        return this.#sights.count('tool_result without success');
      }
      if (answer?.type === 'tool_result') {
        const { tool_call_id: callId, usage_record_id: recordId } = answer.fields;
        const { userId } = this;
        const at = performance.now();
        this.#sights.acknowledged.push({ userId, key, at, callId: String(callId), recordId: String(recordId) });
        return;
      }
      this.#sights.count(String(answer?.fields.code ?? 'not connected'));
      await pause(AGAIN_MS);
    }
  }

  #request(client: TestClient, idempotency_key: string) {
    const request_id = freshRequestId();
    client.send('tool_call', { tool: 'analyze_workload', arguments: {}, idempotency_key, request_id });
    return client.waitFor(
      ({ type, fields }) => (type === 'tool_result' || type === 'error') && fields.request_id === request_id,
      { timeoutMs: ANSWER_MS },
    );
  }

  async #connected(): Promise<TestClient | undefined> {
    if (this.#client) return this.#client;
    const url = this.#urls[this.#attempt++ % this.#urls.length] ?? '';
    const client = await openClient({ url, token: this.#token }).catch(() => undefined);
    const welcome = client && (await client.waitFor('connection_established').catch(() => undefined));
    if (!welcome) {
      this.#sights.connectionsRefused += 1;
      return undefined;
    }
    this.#client = client;
    void client.closed.then(() => {
      this.#sights.connectionsLost += 1;
      this.#noteLosses();
      this.#client = undefined;
    });
    return client;
  }

  #noteLosses(): void {
    const noticed = this.#client?.events.some(({ type }) => type === 'resume_failed') ?? false;
    if (noticed) this.#sights.replayGaps += 1;
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
