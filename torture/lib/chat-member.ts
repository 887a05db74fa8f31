import { setTimeout as delay } from 'node:timers/promises';
import { DefaultChatTransport, type UIMessage, type UIMessageChunk } from 'ai';
import { MESSAGES, Member, type MemberDeps, type Outcome, REQUEST_MS, RUN_MS } from './member.ts';
import type { User } from './users.ts';

/** A chat of the AI SDK, which continues a stream that has broken. */
export class ChatMember extends Member {
  constructor(deps: MemberDeps, user: User) {
    super(deps, user, `${user.id}-chat`);
  }

  protected next(): Promise<unknown> {
    const key = this.newKey('chat');
    return this.operation('chat', { key }, () => this.#chat(key));
  }

  async #chat(chatId: string): Promise<Outcome> {
    const headers = { authorization: `Bearer ${await this.user.token()}` };
    const transport = new DefaultChatTransport<UIMessage>({ api: `${this.url}/v1/chat`, headers });
    const parts = [{ type: 'text' as const, text: MESSAGES[this.random.below(MESSAGES.length)] ?? '' }];
    const messages: UIMessage[] = [{ id: `${chatId}-1`, role: 'user', parts }];
    const send = { trigger: 'submit-message' as const, chatId, messageId: undefined, messages };
    const deadline = performance.now() + RUN_MS;
    let runId: string | undefined;
    while (performance.now() < deadline) {
      const abortSignal = AbortSignal.timeout(REQUEST_MS);
      // The gateway starts one run per message, so a repetition is safe.
      const isNew = runId === undefined;
      const stream: Promise<ReadableStream<UIMessageChunk> | null> = isNew
        ? transport.sendMessages({ ...send, abortSignal })
        : transport.reconnectToStream({ chatId });
      const seen = await stream.then(readChat).catch(() => ({ runId: undefined, finished: false }));
      runId = seen.runId ?? runId;
      if (seen.finished) return { t: 'ok', runId };
      await delay(200);
    }
    return { t: 'unknown', code: 'NO_END', runId };
  }
}

async function readChat(
  stream: ReadableStream<UIMessageChunk> | null,
): Promise<{ runId: string | undefined; finished: boolean }> {
  let runId: string | undefined;
  let finished = false;
  try {
    // A stream of a run that has ended long ago is null.
    for await (const chunk of stream ?? []) {
      if (chunk.type === 'start' && 'messageId' in chunk) runId = String(chunk.messageId);
      if (chunk.type === 'finish' || chunk.type === 'abort') finished = true;
    }
  } catch {
    // The stream broke; what was read counts.
  }
  return { runId, finished: finished || stream === null };
}
