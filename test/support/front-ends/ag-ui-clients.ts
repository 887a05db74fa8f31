import * as current from '@ag-ui/client';
import * as older from 'ag-ui-client-0.0.59';

export interface AgUiClientOptions {
  /** `POST /v1/agui/{agent}` of a node. */
  readonly url: string;
  readonly token: string;
  readonly threadId: string;
  readonly messages: readonly { readonly id: string; readonly role: 'user'; readonly content: string }[];
  readonly fetch?: Fetch;
  /** Tools of the page. */
  readonly tools?: readonly current.Tool[];
}

/** What the tests use of a real client, of either generation. */
export interface AgUiClient {
  readonly messages: readonly {
    readonly id: string;
    readonly role: string;
    readonly content?: unknown;
    readonly toolCalls?: readonly { readonly id: string }[];
  }[];
  /** Calls without a result. */
  readonly pendingCalls: readonly string[];
  /** Adds the result of a call of one of the page's tools. */
  addResult(toolCallId: string, content: string): void;
  url: string;
  /** Number of events after which the response ends, as behind a proxy that turns a break into a regular end. */
  cutAfter: number | undefined;
  /** Types of the events that the client has received, its own ones included. */
  readonly received: string[];
  /** Code of the last RUN_ERROR. */
  errorCode: string | undefined;
  /** Interrupts of the last RUN_FINISHED. */
  readonly interrupts: readonly current.Interrupt[];
  /** Values of the CUSTOM events, by their name. */
  readonly custom: readonly { readonly name: string; readonly value: unknown }[];
  run(runId: string, resume?: readonly current.ResumeEntry[]): Promise<void>;
  /** `connectAgent()` of a subclass: the stock `HttpAgent` has no way back. */
  connect(): Promise<void>;
}

type Fetch = (url: string, init: RequestInit) => Promise<Response>;

class CurrentAgent extends current.HttpAgent {
  override connect(input: current.RunAgentInput) {
    const request = () => this.fetch(`${this.url}/connect`, this.requestInit(input));
    return current.transformHttpEventStream(current.runHttpRequest(request));
  }
}

class OlderAgent extends older.HttpAgent {
  override connect(input: older.RunAgentInput) {
    const request = () => this.fetch(`${this.url}/connect`, this.requestInit(input));
    return older.transformHttpEventStream(older.runHttpRequest(request));
  }
}

const GENERATIONS = { '1.0.0': CurrentAgent, '0.0.59': OlderAgent };
export type AgUiVersion = keyof typeof GENERATIONS;
export const AG_UI_VERSIONS = Object.keys(GENERATIONS) as readonly AgUiVersion[];

export function agUiClient(version: AgUiVersion, options: AgUiClientOptions): AgUiClient {
  const { url, token, threadId, messages, tools = [], fetch: send = fetch } = options;
  const received: string[] = [];
  const custom: { name: string; value: unknown }[] = [];
  const state: { cutAfter: number | undefined; errorCode: string | undefined } = {
    cutAfter: undefined,
    errorCode: undefined,
  };
  const fetchCut: Fetch = async (target, init) => cutResponse(await send(target, init), state.cutAfter);
  const config = { url, threadId, headers: { authorization: `Bearer ${token}` }, initialMessages: [...messages] };
  const agent =
    version === '1.0.0'
      ? new CurrentAgent({ ...config, fetch: fetchCut })
      : new OlderAgent({ ...config, fetch: fetchCut });
  const subscriber = {
    onEvent: ({ event }: { event: { type: string } }) => void received.push(event.type),
    onCustomEvent: ({ event: { name, value } }: { event: { name: string; value?: unknown } }) => {
      custom.push({ name, value });
    },
    onRunErrorEvent: ({ event }: { event: { code?: string | undefined } }) => {
      state.errorCode = event.code;
    },
  };
  return {
    received,
    custom,
    get interrupts() {
      return agent.pendingInterrupts;
    },
    get messages() {
      return agent.messages;
    },
    get pendingCalls() {
      const answered = new Set(agent.messages.map((message) => ('toolCallId' in message ? message.toolCallId : '')));
      return agent.messages
        .flatMap((message) => ('toolCalls' in message ? (message.toolCalls ?? []) : []))
        .flatMap(({ id }) => (answered.has(id) ? [] : [id]));
    },
    addResult: (toolCallId, content) => {
      agent.addMessage({ id: `result-${toolCallId}`, role: 'tool', toolCallId, content });
    },
    get url() {
      return agent.url;
    },
    set url(value) {
      agent.url = value;
    },
    get cutAfter() {
      return state.cutAfter;
    },
    set cutAfter(value) {
      state.cutAfter = value;
    },
    get errorCode() {
      return state.errorCode;
    },
    set errorCode(value) {
      state.errorCode = value;
    },
    run: async (runId, resume) => {
      await agent.runAgent({ runId, tools: [...tools], ...(resume && { resume: [...resume] }) }, subscriber);
    },
    connect: async () => {
      await agent.connectAgent({}, subscriber);
    },
  };
}

/**
 * Ends a response after a number of server-sent events, and disconnects from the server. A broken response ends too: in
 * Node, `HttpAgent` would raise an unhandled rejection beside its own error.
 */
export function cutResponse(response: Response, after: number | undefined): Response {
  if (after === undefined || !response.body) return response;
  let rest = after;
  let buffered = '';
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const ended = { done: true, value: '' } as const;
      const { done, value } = rest > 0 ? await reader.read().catch(() => ended) : ended;
      buffered += value ?? '';
      for (let end = buffered.indexOf('\n\n'); end !== -1 && rest > 0; end = buffered.indexOf('\n\n')) {
        const event = buffered.slice(0, end + 2);
        buffered = buffered.slice(end + 2);
        if (event.includes('data:')) rest--;
        controller.enqueue(new TextEncoder().encode(event));
      }
      if (!done && rest > 0) return;
      controller.close();
      await reader.cancel().catch(() => undefined);
    },
  });
  return new Response(body, { status: response.status, headers: response.headers });
}
