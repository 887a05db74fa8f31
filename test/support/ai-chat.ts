import { AbstractChat, type ChatInit, type ChatTransport, type UIMessage, type WebSocketChatTransport } from 'ai';
import { WebSocket } from 'ws';

/** `useChat` without React: the chat of the AI SDK with its state in memory. */
export class TestChat extends AbstractChat<UIMessage> {
  constructor(options: {
    id: string;
    transport: ChatTransport<UIMessage>;
    messages?: UIMessage[];
    sendAutomaticallyWhen?: ChatInit<UIMessage>['sendAutomaticallyWhen'];
    onToolCall?: NonNullable<ChatInit<UIMessage>['onToolCall']>;
  }) {
    const { messages = [], ...rest } = options;
    super({
      ...rest,
      state: {
        status: 'ready',
        error: undefined,
        messages,
        pushMessage(message) {
          this.messages = [...this.messages, message];
        },
        popMessage() {
          this.messages = this.messages.slice(0, -1);
        },
        replaceMessage(at, message) {
          this.messages = this.messages.with(at, message);
        },
        snapshot: (value) => structuredClone(value),
      },
    });
  }
}

/** A connection that a test cuts after some events of the protocol. */
export interface Cut {
  /** Number of `data` lines that pass; undefined for all. */
  after: number | undefined;
  /** How it ends: as a lost network, or as a proxy that takes it for complete. */
  readonly how: 'broken' | 'clean';
}

/** What a cut connection has seen. */
export interface Seen {
  events: number;
  /** The `seq` of the last event whose `id` has arrived. */
  seq: number;
  wasCut: boolean;
}

/** A `fetch` whose first streamed response is cut. */
export function cuttingFetch(cut: Cut): { readonly fetch: typeof fetch; readonly seen: Seen } {
  const seen: Seen = { events: 0, seq: 0, wasCut: false };
  const cutting: typeof fetch = async (input, init) => {
    const response = await fetch(input, init);
    if (!response.body || response.status !== 200 || seen.wasCut) return response;
    return new Response(cutBody(response.body, cut, seen), response);
  };
  return { fetch: cutting, seen };
}

function cutBody(body: ReadableStream<Uint8Array>, cut: Cut, seen: Seen): ReadableStream<Uint8Array> {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  const encoder = new TextEncoder();
  let rest = '';
  return new ReadableStream({
    async pull(controller) {
      for (;;) {
        const end = rest.indexOf('\n\n');
        if (end < 0) {
          const { value, done } = await reader.read();
          if (done) return controller.close();
          rest += value;
          continue;
        }
        const block = rest.slice(0, end + 2);
        rest = rest.slice(end + 2);
        controller.enqueue(encoder.encode(block));
        if (block.includes('data: {')) seen.events += 1;
        const seq = /^id: \w+:(\d+)$/m.exec(block)?.[1];
        if (seq !== undefined) seen.seq = Number(seq);
        if (seen.events !== cut.after) return;
        seen.wasCut = true;
        await reader.cancel();
        if (cut.how === 'clean') return controller.close();
        return controller.error(new TypeError('network error'));
      }
    },
    cancel: (reason) => reader.cancel(reason),
  });
}

type ChatWebSocket = NonNullable<ConstructorParameters<typeof WebSocketChatTransport>[0]['webSocket']>;

/** A WebSocket class whose first connection is lost after some chunks, for `WebSocketChatTransport`. */
export function cuttingWebSocket(cut: Cut): { readonly webSocket: ChatWebSocket; readonly seen: Seen } {
  const seen: Seen = { events: 0, seq: 0, wasCut: false };
  class CuttingWebSocket extends WebSocket {
    override emit(name: string | symbol, ...values: unknown[]): boolean {
      if (name !== 'message') return super.emit(name, ...values);
      const frame = JSON.parse(String(values[0])) as { type: string; chunk?: { messageMetadata?: unknown } };
      if (frame.type !== 'chunk' || seen.wasCut) return super.emit(name, ...values);
      seen.events += 1;
      const isHandled = super.emit(name, ...values);
      if (seen.events === cut.after) {
        seen.wasCut = true;
        this.terminate();
      }
      return isHandled;
    }
  }
  return { webSocket: CuttingWebSocket as unknown as ChatWebSocket, seen };
}
