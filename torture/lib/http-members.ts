import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { type CallToolResult, Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { agUiClient } from '../../test/support/front-ends/ag-ui-clients.ts';
import { MESSAGES, Member, type MemberDeps, type Outcome, REQUEST_MS, RUN_MS } from './member.ts';
import type { User } from './users.ts';

const RETRY_MS = 200;
/** A client gives up after this time; the outcome of its call is then unknown. */
const CALL_MS = 40_000;

/** Codes with which a run ends; every other one ends only the stream. */
const RUN_ERRORS = ['AGENT_UNAVAILABLE', 'AGENT_FAILED', 'RUN_TIMEOUT', 'RUN_FAILED', 'INTERRUPTED'];

interface Meta {
  readonly 'tollgate/toolCallId'?: string;
}

/** A client of MCP, which repeats a call with its idempotency key after a lost answer, on any node. */
export class McpMember extends Member {
  #client: Client | undefined;

  constructor(deps: MemberDeps, user: User) {
    super(deps, user, `${user.id}-mcp`);
  }

  override close(): void {
    void this.#client?.close().catch(() => {});
  }

  protected async next(): Promise<void> {
    const key = this.newKey('mcp');
    await this.operation('mcp', { key }, () => this.#call(key));
  }

  async #call(key: string): Promise<Outcome> {
    const deadline = performance.now() + CALL_MS;
    let code = 'NO_ANSWER';
    for (let attempt = 0; performance.now() < deadline; attempt++) {
      try {
        this.#client ??= await this.#connect();
        const _meta = { 'tollgate/idempotencyKey': key };
        const params = { name: 'add', arguments: { key }, _meta };
        const result = (await this.#client.callTool(params, { timeout: REQUEST_MS })) as CallToolResult;
        const callId = (result._meta as Meta | undefined)?.['tollgate/toolCallId'];
        if (callId !== undefined) return { t: 'ok', callId, success: result.isError !== true };
        code = JSON.stringify(result).slice(0, 200);
      } catch (error) {
        const { data } = error as { readonly data?: { readonly code?: string; readonly retryable?: boolean } };
        code = data?.code ?? String(error).slice(0, 200);
        // The refusal of a repetition, for example of its token, says nothing about the first attempt.
        if (data?.retryable === false) return { t: attempt === 0 ? 'failed' : 'unknown', code };
        this.close();
        this.#client = undefined;
      }
      await delay(RETRY_MS);
    }
    return { t: 'unknown', code };
  }

  async #connect(): Promise<Client> {
    const client = new Client({ name: 'torture', version: '1' }, { versionNegotiation: { mode: 'auto' } });
    const requestInit = { headers: { authorization: `Bearer ${await this.user.token()}` } };
    const transport = new StreamableHTTPClientTransport(new URL('/mcp', this.url), { requestInit });
    await client.connect(transport, { timeout: REQUEST_MS });
    return client;
  }
}

/** The client of AG-UI has no timeout, and prints the stack of every error that is no abort. */
async function boundedFetch(url: string, init: RequestInit): Promise<Response> {
  const timeout = AbortSignal.timeout(REQUEST_MS);
  try {
    const signal = init.signal ? AbortSignal.any([init.signal, timeout]) : timeout;
    const response = await fetch(url, { ...init, signal });
    if (response.ok) return response;
    throw new Error(`status ${response.status}: ${await response.text()}`);
  } catch (error) {
    throw Object.assign(new Error(String(error)), { name: 'AbortError' });
  }
}

/** A client of AG-UI. It sends a run again after a broken stream: one thread and run id start one run. */
export class AgUiMember extends Member {
  constructor(deps: MemberDeps, user: User) {
    super(deps, user, `${user.id}-ag-ui`);
  }

  protected async next(): Promise<void> {
    const runId = randomBytes(8).toString('hex');
    const threadId = `ag-ui-${runId}`;
    // The gateway derives its request id from the names of thread and run.
    await this.operation('ag-ui', { key: `agui:${threadId}:${runId}` }, () => this.#run(threadId, runId));
  }

  async #run(threadId: string, runId: string): Promise<Outcome> {
    const agent = this.random.chance(0.5) ? 'agui' : 'default';
    const content = MESSAGES[this.random.below(MESSAGES.length)] ?? '';
    const messages = [{ id: `${runId}-1`, role: 'user' as const, content }];
    const deadline = performance.now() + RUN_MS;
    let code = 'NO_END';
    while (performance.now() < deadline) {
      const token = await this.user.token();
      const url = `${this.url}/v1/agui/${agent}`;
      const client = agUiClient('1.0.0', { url, token, threadId, messages, fetch: boundedFetch });
      // A broken response then ends without an unhandled rejection.
      client.cutAfter = Number.MAX_SAFE_INTEGER;
      await client.run(runId).catch((error: unknown) => {
        code = String(error).slice(0, 200);
      });
      if (client.received.includes('RUN_FINISHED')) return { t: 'ok', end: 'agent_completed' };
      const { errorCode } = client;
      if (errorCode !== undefined && RUN_ERRORS.includes(errorCode)) return { t: 'ok', end: 'agent_failed' };
      code = errorCode ?? code;
      await delay(RETRY_MS);
    }
    return { t: 'unknown', code };
  }
}
