import type { TollgateError } from '../../protocol/errors.ts';
import type { StreamEncoder, StreamOutput } from '../../transports/event-stream-transport.ts';
import { eventId, KEEP_ALIVE, type RunEvent, runEncoder } from '../run-events.ts';
import { ChatResponse } from './chat-response.ts';
import { type Chunk, errorChunks, MAPPING_VERSION } from './chunks.ts';

/** A position in the chunks of a run that a client can name: valid for one history of the log and one mapping. */
export interface ChunkedRun {
  readonly runId: string;
  readonly epoch: string;
  /** The response continues the message after this event; undefined for the whole message. */
  readonly afterSeq?: number;
}

/**
 * The value of `x-workflow-run-id`, which clients send back in the path: `<run>.<epoch>.<mapping version>`, with a
 * response that continues after an answer `.<seq>`.
 */
function workflowRunId({ runId, epoch, afterSeq }: ChunkedRun): string {
  return `${runId}.${epoch}.${MAPPING_VERSION}${afterSeq === undefined ? '' : `.${afterSeq}`}`;
}

/** Parses the value of `workflowRunId`; undefined for a chat id. */
export function parseWorkflowRunId(text: string): (ChunkedRun & { readonly version: number }) | undefined {
  const name = /^(run_[\w-]{1,60})\.(\w{1,60})\.(\d{1,6})(?:\.(\d{1,15}))?$/;
  const [, runId, epoch, version, after] = name.exec(text) ?? [];
  if (runId === undefined || epoch === undefined) return undefined;
  return { runId, epoch, version: Number(version), ...(after === undefined ? {} : { afterSeq: Number(after) }) };
}

/** The end of a stream, which the AI SDK sends and does not need. */
const DONE = 'data: [DONE]\n\n';

/**
 * Encodes the events of one run as the UI message stream of the AI SDK 7.
 * @param from index of the first chunk that the client has not received
 */
export function chatEncoder(run: ChunkedRun, from = 0): StreamEncoder {
  const response = new ChatResponse(run.runId, run.afterSeq);
  const output = (first: number, chunks: readonly Chunk[]): StreamOutput => {
    const last = chunks.at(-1);
    const lines = chunks
      .slice(Math.max(0, from - first))
      .map((chunk) => render(chunk, chunk === last && response.last));
    const bytes = lines.join('');
    return response.hasEnded ? { bytes: bytes + DONE, ends: true } : { bytes };
  };
  return runEncoder(run.runId, {
    protocol: 'ai_sdk',
    contentType: 'text/event-stream',
    keepAlive: KEEP_ALIVE,
    headers: { 'x-vercel-ai-ui-message-stream': 'v1', 'x-workflow-run-id': workflowRunId(run) },
    event: (event) => output(response.sent, response.add(event)),
    caughtUp: () => output(response.sent, response.caughtUp()),
    error: renderError,
  });
}

/** The chunks of an error, as bytes of a stream. */
export function renderError(error: TollgateError): string {
  return (
    errorChunks(error)
      .map((chunk) => render(chunk, false))
      .join('') + DONE
  );
}

/** @param event the event of which this is the last chunk, so that it has its position as id */
function render(chunk: Chunk, event: RunEvent | false | undefined): string {
  return `${event ? `id: ${eventId(event)}\n` : ''}data: ${JSON.stringify(chunk)}\n\n`;
}
