import type { TollgateError } from '../../protocol/errors.ts';
import type { StreamEncoder } from '../../transports/event-stream-transport.ts';
import { eventId, KEEP_ALIVE, type RunEvent, runEncoder } from '../run-events.ts';
import { type Chunk, errorChunks, INITIAL_STATE, MAPPING_VERSION, mapEvent } from './chunks.ts';

/** A position in the chunks of a run that a client can name: valid for one history of the log and one mapping. */
export interface ChunkedRun {
  readonly runId: string;
  readonly epoch: string;
}

/** The value of `x-workflow-run-id`, which clients send back in the path: `<run>.<epoch>.<mapping version>`. */
export function workflowRunId({ runId, epoch }: ChunkedRun): string {
  return `${runId}.${epoch}.${MAPPING_VERSION}`;
}

/** Parses the value of `workflowRunId`; undefined for a chat id. */
export function parseWorkflowRunId(text: string): (ChunkedRun & { readonly version: number }) | undefined {
  const [, runId, epoch, version] = /^(run_[\w-]{1,60})\.(\w{1,60})\.(\d{1,6})$/.exec(text) ?? [];
  return runId === undefined || epoch === undefined ? undefined : { runId, epoch, version: Number(version) };
}

/** The end of a stream, which the AI SDK sends and does not need. */
const DONE = 'data: [DONE]\n\n';

/**
 * Encodes the events of one run as the UI message stream of the AI SDK 7.
 * @param from index of the first chunk that the client has not received
 */
export function chatEncoder(run: ChunkedRun, from = 0): StreamEncoder {
  let state = INITIAL_STATE;
  return runEncoder(run.runId, {
    protocol: 'ai_sdk',
    contentType: 'text/event-stream',
    keepAlive: KEEP_ALIVE,
    headers: { 'x-vercel-ai-ui-message-stream': 'v1', 'x-workflow-run-id': workflowRunId(run) },
    event(event) {
      const { chunks: first } = state;
      const mapped = mapEvent(state, event);
      ({ state } = mapped);
      const last = mapped.chunks.at(-1);
      const lines = mapped.chunks
        .slice(Math.max(0, from - first))
        .map((chunk) => render(chunk, chunk === last && event));
      return lines.join('') + (last?.type === 'finish' ? DONE : '');
    },
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
function render(chunk: Chunk, event: RunEvent | false): string {
  return `${event ? `id: ${eventId(event)}\n` : ''}data: ${JSON.stringify(chunk)}\n\n`;
}
