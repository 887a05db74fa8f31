import { freshRequestId } from './agent-runs.ts';
import type { ReceivedEvent, TestClient } from './clients.ts';

/** Calls a tool; resolves with its `tool_result`, or with the `error` of a refusal. */
export async function callTool(
  client: TestClient,
  tool: string,
  args: Readonly<Record<string, unknown>> = {},
  more: Readonly<Record<string, unknown>> = {},
): Promise<ReceivedEvent> {
  const request_id = freshRequestId();
  client.send('tool_call', { tool, arguments: args, ...more, request_id });
  return client.waitFor(
    ({ type, fields }) => (type === 'tool_result' || type === 'error') && fields.request_id === request_id,
    { label: `the answer of ${tool}` },
  );
}

/** Returns the events of one call, in order of arrival. */
export function eventsOfCall(client: TestClient, callId: unknown): ReceivedEvent[] {
  return client.events.filter(({ type, fields }) => fields.tool_call_id === callId && type !== 'tool_result');
}
