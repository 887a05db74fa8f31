import type { CallToolResult, Client, RequestOptions } from '@modelcontextprotocol/client';
import { z } from 'zod';
import { type Clock, sleep } from '../lib/clock.ts';
import { NEEDS_INPUT, UnusableResult, UpstreamRefusal } from './faults.ts';

/** Bounds of the time between two requests for the state of a task. The server suggests the time. */
const POLL_MS = { least: 100, default: 500, most: 5_000 };

/** Timeout of the cancellation of a task. */
const CANCEL_MS = 1_000;

const Task = z.looseObject({
  taskId: z.string().min(1),
  status: z.string(),
  statusMessage: z.string().nullish(),
  pollInterval: z.number().nullish(),
});
type Task = z.infer<typeof Task>;
/** A server may answer with the result at once. */
const Created = z.union([z.looseObject({ task: Task }), z.looseObject({ content: z.array(z.unknown()) })]);
const Result = z.looseObject({});

export interface TaskRequest {
  readonly name: string;
  readonly arguments: Record<string, unknown>;
  readonly _meta: Record<string, unknown>;
}

/**
 * Calls a tool as a task (MCP 2025-11-25, tasks): creates the task, requests its state until it has ended, and requests
 * its result. The SDK has the messages and no client of tasks. A task whose caller stops waiting is cancelled.
 * @throws UpstreamRefusal when the task fails without a result, is cancelled by the server or needs input
 */
export async function callAsTask(
  client: Client,
  request: TaskRequest,
  { clock, options }: { readonly clock: Clock; readonly options: RequestOptions },
): Promise<CallToolResult> {
  const ttl = options.timeout;
  const params = { ...request, task: ttl === undefined ? {} : { ttl } };
  const created = await client.request({ method: 'tools/call', params }, Created, options);
  if (!('task' in created)) return validResult(created);
  const { taskId } = created.task as Task;
  const quiet = { signal: options.signal, timeout: options.timeout } as RequestOptions;
  try {
    await untilEnded(client, created.task as Task, { clock, options: quiet });
    return validResult(await client.request({ method: 'tasks/result', params: { taskId } }, Result, quiet));
  } catch (error) {
    // Awaited, because the connection may close after this call. The signal of the call is not used: it may have
    // aborted.
    if (options.signal?.aborted || error instanceof UpstreamRefusal) {
      const cancelled = client.request({ method: 'tasks/cancel', params: { taskId } }, Result, { timeout: CANCEL_MS });
      await cancelled.catch(() => undefined);
    }
    throw error;
  }
}

async function untilEnded(
  client: Client,
  created: Task,
  { clock, options }: { readonly clock: Clock; readonly options: RequestOptions },
): Promise<void> {
  for (let task = created; task.status !== 'completed' && task.status !== 'failed'; ) {
    if (task.status === 'cancelled') throw new UpstreamRefusal(0, 'The server cancelled the task.');
    if (task.status === 'input_required') throw new UpstreamRefusal(0, NEEDS_INPUT);
    const { least, most } = POLL_MS;
    await sleep(clock, Math.min(Math.max(task.pollInterval ?? POLL_MS.default, least), most), options.signal);
    options.signal?.throwIfAborted();
    task = await client.request({ method: 'tasks/get', params: { taskId: task.taskId } }, Task, options);
  }
}

function validResult(result: Record<string, unknown>): CallToolResult {
  if (!Array.isArray(result.content)) throw new UnusableResult('The task has no result of the form that MCP defines.');
  return result as CallToolResult;
}
