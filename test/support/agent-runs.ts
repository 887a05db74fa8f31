import { randomBytes } from 'node:crypto';
import type { ReceivedEvent, TestClient } from './clients.ts';
import { isTerminal } from './runs.ts';

export type Fields = ReceivedEvent['fields'];

/** One run as its client observed it. */
export interface SeenRun {
  readonly runId: string;
  readonly accepted: ReceivedEvent;
  /** The events of the run in order of arrival, the terminal one last. */
  readonly events: readonly ReceivedEvent[];
  /** `performance.now()` when the request was sent. */
  readonly sentAt: number;
}

export function freshRequestId(): string {
  return `req_${randomBytes(9).toString('base64url')}`;
}

/** Returns the events of one run among those that a client received. */
export function eventsOf(client: TestClient, runId: unknown): ReceivedEvent[] {
  return client.events.filter(({ fields }) => fields.run_id === runId && typeof fields.seq === 'number');
}

/** Sends an agent request and resolves with the run when it has ended. @param type the message's name or an alias */
export async function runToEnd(
  client: TestClient,
  fields: Record<string, unknown> = {},
  type = 'agent_request',
): Promise<SeenRun> {
  const request_id = typeof fields.request_id === 'string' ? fields.request_id : freshRequestId();
  const sentAt = performance.now();
  client.send(type, { message: 'How is my workload doing?', ...fields, request_id });
  const accepted = await client.waitFor(
    (event) => event.fields.request_id === request_id && (event.type === 'agent_accepted' || event.type === 'error'),
    { label: 'agent_accepted' },
  );
  if (accepted.type === 'error') throw new Error(`the request was refused: ${JSON.stringify(accepted.fields)}`);
  const runId = String(accepted.fields.run_id);
  await client.waitFor((event) => isTerminal(event) && event.fields.run_id === runId, {
    label: `the end of ${runId}`,
    timeoutMs: 10_000,
  });
  return { runId, accepted, events: eventsOf(client, runId), sentAt };
}
