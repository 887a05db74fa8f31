import type { Permissions } from '../catalogue/permissions.ts';
import type { Tool, ToolCatalogue } from '../catalogue/tool-catalogue.ts';
import type { Clock } from '../lib/clock.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { Quotas, RateLimitStatus, Reservation } from '../limits/quotas.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { InputOutcome, InputRequest } from '../protocol/input.ts';
import type { RefusalSink } from '../protocol/refusals.ts';
import type { Refusal, UsageStatus } from '../protocol/usage.ts';
import { refusal, usageRecord } from '../usage/records.ts';
import { type Ending, recordOf, type ToolOutcome } from './outcome.ts';
import { questionOfArguments } from './question.ts';
import type { ToolExecutor, ToolInputExchange } from './tool.ts';
import type { ToolCallRequest } from './tool-call.ts';
import { type Executed, type ExecutionDeps, type Executors, executeTool, executorOf } from './tool-execution.ts';
import { traceEnd, traceReserve } from './tool-tracing.ts';

const DEGRADED = 'Only free tools are available until the session is verified again. Try again later.';

/** A tool that the caller may call with these arguments. */
interface AuthorizedTool {
  readonly tool: Tool;
  readonly executor: ToolExecutor;
}

export interface ReservedCall {
  readonly tool: Tool;
  readonly reservation: Reservation;
}

/** A call that has begun: it is in flight and holds its reservation until `end`. */
export interface BegunCall {
  readonly kind: 'begun';
  /** Null when no limit was checked. */
  readonly status: RateLimitStatus | null;
  /** Time at which the call, or its run, was accepted, in milliseconds since the epoch. */
  readonly acceptedAt: number;
  /** Whether the call can end with an input request. If not, a tool that needs input counts as failed. */
  readonly mayRequestInput: boolean;
  /**
   * Records the ending, and commits or releases the reservation.
   * @returns the valid outcome; it differs from the given one if the call had already ended
   */
  end(ending: Ending): Promise<ToolOutcome>;
}

export type Begin =
  | BegunCall
  | { readonly kind: 'refused'; readonly error: TollgateError }
  /** An earlier request began the call. */
  | { readonly kind: 'repeated'; outcome(): Promise<ToolOutcome> };

/** Records one call: with an entry of its own in Redis, or in the log of its run. */
export interface CallJournal {
  /** Returns the recorded outcome of a call that an earlier worker completed; undefined if there is none. */
  replay(): Promise<ToolOutcome> | undefined;
  /**
   * Asks the user. Absent outside a run, where the user made the call.
   * @throws RunSuspended when there is no answer yet
   */
  ask?(request: InputRequest): Promise<InputOutcome>;
  /**
   * Returns what the server of a tool receives of its input requests to the user of the run: at first the capabilities,
   * after a wait the answers. Absent outside a run, where the request contains them.
   * @throws RunSuspended when an answer is missing
   */
  exchange?(): ToolInputExchange | Promise<ToolInputExchange>;
  /** Reserves quota and concurrency, and appends `tool_executing`. @throws TollgateError when it cannot be recorded */
  begin(call: ReservedCall): Promise<Begin>;
  /** Records a refusal. Returns it as an outcome in a run; throws it outside. */
  refuse(error: TollgateError, counted: Refusal): Promise<ToolOutcome>;
}

export interface CallEnd {
  readonly outcome: ToolOutcome;
  readonly repeated: boolean;
  readonly status: RateLimitStatus | null;
}

/** Completes a call that has begun. */
export type Finish = () => Promise<CallEnd>;

/** A request whose execution can be stopped. */
export type StoppableRequest = ToolCallRequest & { readonly signal: AbortSignal };

export interface PipelineDeps extends ExecutionDeps, Executors {
  readonly tools: ToolCatalogue;
  readonly permissions: Permissions;
  readonly quotas: Quotas;
  readonly clock: Clock;
  readonly metrics: Pick<Metrics, 'toolCalls' | 'toolSeconds'>;
  readonly refusals: RefusalSink;
  /** Timeout of one execution. */
  readonly timeoutMs: number;
}

/**
 * The steps of every tool call: authorise → reserve → execute → commit or release. Calls of all transports and of
 * agents take the same steps; their journals differ. Refusals are free.
 *
 * Authorises and reserves; the returned function takes the other steps. The journal is called before the first wait, so
 * that calls are recorded in the order in which they are made.
 */
export async function beginCall(deps: PipelineDeps, request: StoppableRequest, journal: CallJournal): Promise<Finish> {
  try {
    return await begin(deps, request, journal);
  } catch (error) {
    if (error instanceof TollgateError) count(deps, request, error.code);
    throw error;
  }
}

async function begin(deps: PipelineDeps, request: StoppableRequest, journal: CallJournal): Promise<Finish> {
  const replayed = journal.replay();
  if (replayed) return repeated(await replayed);

  const allowed = authorize(deps, request);
  if (allowed instanceof TollgateError) return refuse(deps, { request, journal, error: allowed });
  const question = questionOf(deps, request, allowed.tool, journal);
  if (question instanceof TollgateError) return refuse(deps, { request, journal, error: question });
  const authorized = question ? await ask(question, allowed) : allowed;
  if (authorized instanceof TollgateError) return refuse(deps, { request, journal, error: authorized });

  const exchange = authorized.tool.upstream ? journal.exchange?.() : undefined;
  // Without a wait, the call is recorded in this turn of the event loop.
  const input = exchange instanceof Promise ? await exchange : exchange;
  const answered = input ? { ...request, input } : request;
  const call = { ...authorized, reservation: reservationFor(deps, answered, authorized.tool) };
  const begun = await traceReserve(deps, () => journal.begin(call));
  switch (begun.kind) {
    case 'refused':
      return refuse(deps, { request, journal, error: begun.error });
    case 'repeated':
      return async () => ({ outcome: await begun.outcome(), repeated: true, status: null });
    case 'begun':
      return () => executeAndCommit(deps, answered, { ...call, begun });
  }
}

/** Makes all checks that need no round trip. Returns the tool, or the refusal. */
function authorize(
  deps: PipelineDeps,
  { tool: name, caller, degraded, args }: ToolCallRequest,
): AuthorizedTool | TollgateError {
  const tool = deps.tools.get(name);
  const fields = { tool_name: name };
  if (!tool) return new TollgateError('TOOL_NOT_FOUND', { fields });
  const { allowed, reason, ...decision } = deps.permissions.decide(tool, caller);
  if (!allowed) return new TollgateError('PERMISSION_DENIED', { text: reason, fields: { ...fields, ...decision } });
  if (degraded && tool.units > 0) return new TollgateError('AUTH_SERVICE_UNAVAILABLE', { text: DEGRADED });
  const executor = tool.executor === 'user' ? unanswered : executorOf(deps, tool);
  if (!executor) return new TollgateError('TOOL_NOT_AVAILABLE', { fields });
  const problem = tool.argumentsProblem(args);
  if (problem !== undefined) return new TollgateError('FORMAT_ERROR', { text: problem, fields });
  return { tool, executor };
}

/** Stands for the executor of a tool that the user answers. */
const unanswered: ToolExecutor = async () => {
  throw new TollgateError('TOOL_NOT_AVAILABLE');
};

/** A question to the user before a tool is executed. */
type Question = () => Promise<{ readonly outcome: InputOutcome; readonly isApproval: boolean }>;

/** Returns the question that the call needs; undefined for none. A question outside a run is a refusal. */
function questionOf(
  deps: PipelineDeps,
  { args, tool: name }: ToolCallRequest,
  tool: Tool,
  journal: CallJournal,
): Question | TollgateError | undefined {
  const isApproval = tool.executor !== 'user';
  if (isApproval && !(journal.ask && deps.tools.permission(tool.permission)?.approval)) return undefined;
  if (!journal.ask) return new TollgateError('TOOL_NOT_AVAILABLE', { fields: { tool_name: name } });
  const request = isApproval ? approvalOf(tool) : questionOfArguments(args);
  if (typeof request === 'string') return new TollgateError('FORMAT_ERROR', { text: request });
  return async () => ({ outcome: (await journal.ask?.(request)) ?? { action: 'cancel' }, isApproval });
}

function approvalOf(tool: Tool): InputRequest {
  return { kind: 'approval', message: `The agent asks to use ${tool.name}: ${tool.description}` };
}

/** Returns the call with the answer: a tool that the user answers returns it as its result. */
async function ask(question: Question, call: AuthorizedTool): Promise<AuthorizedTool | TollgateError> {
  const { outcome, isApproval } = await question();
  if (!isApproval) return { ...call, executor: async () => ({ ...outcome }) };
  if (outcome.action === 'accept') return call;
  return new TollgateError(outcome.action === 'expired' ? 'INPUT_EXPIRED' : 'APPROVAL_DECLINED', {
    fields: { tool_name: call.tool.name },
  });
}

function reservationFor(deps: PipelineDeps, { callId, caller, input }: ToolCallRequest, tool: Tool): Reservation {
  const mayRequestInput = input !== undefined && tool.upstream !== undefined;
  return deps.quotas.reservationFor({ callId, tool, caller, mayRequestInput });
}

async function executeAndCommit(
  deps: PipelineDeps,
  request: StoppableRequest,
  call: ReservedCall & { readonly executor: ToolExecutor; readonly begun: BegunCall },
): Promise<CallEnd> {
  const { tool, executor, begun } = call;
  const context = begun.mayRequestInput ? request : { ...request, input: undefined };
  const executed = await executeTool(deps, {
    ...{ tool: tool.name, executor, args: request.args },
    ...{ context, timeoutMs: deps.timeoutMs },
  });
  const ending = endingOf(deps, request, call, executed);
  const outcome = await traceEnd(deps, recordOf(ending), () => begun.end(ending));
  return { outcome, repeated: false, status: begun.status };
}

function endingOf(
  deps: PipelineDeps,
  request: ToolCallRequest,
  { tool, reservation, begun }: ReservedCall & { readonly begun: BegunCall },
  executed: Executed,
): Ending {
  if (executed.kind === 'input_required' && begun.mayRequestInput) {
    count(deps, request, executed.kind);
    const { error, inputRequests: inputRequired, startedAt, completedAt } = executed;
    const duration_ms = Math.max(0, completedAt - startedAt);
    return {
      kind: 'input_required',
      outcome: { success: false, error, ...(inputRequired && { inputRequired }), duration_ms, usage_record_id: null },
      // If capabilities are missing, the round stays the same: the caller can repeat the request and declare more.
      round: inputRequired?.round ?? request.input?.answered ?? 0,
      commit: reservation.inputRequired,
    };
  }
  const status = STATUS[executed.kind];
  count(deps, request, status);
  const record = recordFor(request, tool, { status, acceptedAt: begun.acceptedAt, executed });
  const result =
    executed.kind === 'success'
      ? { success: true, result: executed.result }
      : { success: false, error: executed.error };
  const outcome = { ...result, duration_ms: record.duration_ms, usage_record_id: record.id };
  if (executed.kind === 'stopped') return { kind: 'stopped', outcome, record };
  const commit = reservation.commit({ units: record.units, completedAt: record.completed_at });
  return { kind: 'completed', outcome, record, commit };
}

async function refuse(
  deps: PipelineDeps,
  { request, journal, error }: { request: ToolCallRequest; journal: CallJournal; error: TollgateError },
): Promise<Finish> {
  const { userId, caller, tool } = request;
  const counted = refusal(userId, caller.plan, deps.tools.get(tool)?.name, deps.clock.now());
  const outcome = await journal.refuse(error, counted);
  // A journal outside a run throws instead, and the transport that sends the error counts it.
  deps.refusals.refused(userId, error);
  deps.tracing.failed(error);
  count(deps, request, error.code);
  return async () => ({ outcome, repeated: false, status: null });
}

/** Names outside the catalogue share one label, to bound the cardinality. */
function count(deps: PipelineDeps, { tool, transport }: ToolCallRequest, status: string): void {
  const label = deps.tools.get(tool) ? tool : 'unknown';
  deps.metrics.toolCalls.inc({ tool: label, transport, status });
}

/** Status of the usage record. An input request that the caller cannot answer counts as a failure. */
const STATUS: Readonly<Record<Executed['kind'], UsageStatus>> = {
  success: 'success',
  error: 'error',
  input_required: 'error',
  cancelled: 'cancelled',
  stopped: 'cancelled',
};

function recordFor(
  { callId, userId, caller, runId, threadId, requestId, idempotencyKey, transport }: ToolCallRequest,
  { name, permission, units }: Tool,
  execution: { readonly status: UsageStatus; readonly acceptedAt: number; readonly executed: Executed },
) {
  const { status, acceptedAt, executed } = execution;
  return usageRecord({
    callId,
    user_id: userId,
    plan: caller.plan,
    tool: name,
    permission,
    status,
    units,
    run_id: runId ?? null,
    thread_id: threadId,
    request_id: requestId,
    idempotency_key: idempotencyKey,
    transport,
    acceptedAt,
    startedAt: executed.startedAt,
    completedAt: executed.completedAt,
  });
}

function repeated(outcome: ToolOutcome): Finish {
  return async () => ({ outcome, repeated: true, status: null });
}
