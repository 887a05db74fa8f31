import { setTimeout as delay } from 'node:timers/promises';
import { until } from '../../test/support/until.ts';
import { type Deployment, startAgain } from './deployment.ts';
import { Evidence } from './evidence.ts';
import { type PlannedFault, planFaults } from './fault-plan.ts';
import { begin, kindsFor } from './faults.ts';
import { Recorder } from './history.ts';
import { type Population, populate } from './population.ts';

export interface RoundOptions {
  readonly seed: number;
  readonly durationMs: number;
  readonly users: number;
  readonly only: readonly string[] | undefined;
  readonly faultsPerSecond: number;
  /** Plays these faults instead of those that the seed plans. */
  readonly faults?: readonly PlannedFault[] | undefined;
  readonly historyFile: string;
  readonly progress: (line: string) => void;
}

/** The day whose allowances count, in UTC. */
const today = () => new Date().toISOString().slice(0, 'YYYY-MM-DD'.length);
/** Work before the first fault and after the last one, so that recovery is measured. */
const QUIET_MS = 2_000;
const TOOL_MS = 30_000;

/** Runs one round on a deployment: work, faults, healing, evidence. Its history is written to the file. */
export async function runRound(deployment: Deployment, options: RoundOptions): Promise<void> {
  const recorder = new Recorder(options.historyFile);
  const stop = new AbortController();
  const sampling = new AbortController();
  let members: Population['members'] = [];
  try {
    const day = today();
    const population = await populate(deployment, recorder, { ...options, signal: stop.signal });
    const evidence = new Evidence(deployment, population, recorder);
    const before = await evidence.resources();
    members = population.members;
    await toolIsOffered(population);
    const working = Promise.all(members.map((member) => member.work()));
    // A client that fails ends the round, but only after the healing.
    working.catch(() => {});
    const samples = evidence.sampleCaps(sampling.signal);
    await delay(QUIET_MS);
    await playFaults(deployment, recorder, options);
    options.progress('healed; the clients finish');
    await delay(QUIET_MS);
    stop.abort();
    await working;
    sampling.abort();
    await samples;
    for (const member of members) member.close();
    options.progress('waiting for the base line');
    await evidence.recordResources(before, options.progress);
    options.progress('reading logs and ledger');
    await evidence.recordState();
    await recordFailures(deployment, recorder);
    for (const line of population.limits) if (line.t !== 'quota' || today() === day) recorder.write(line);
    recorder.write({ t: 'finished', users: population.users.map(({ id }) => id) });
  } finally {
    stop.abort();
    sampling.abort();
    // Also after a failure: an open client keeps this process alive.
    for (const member of members) member.close();
    recorder.flush();
  }
}

/** The gateways list the tools of the tool server some time after their start. */
async function toolIsOffered({ first }: Population): Promise<void> {
  await until(() => first?.offersTools(), { timeoutMs: TOOL_MS, everyMs: 100, label: 'the tools of the tool server' });
}

/** Returns the faults of a round. */
export function planOf(
  deployment: Deployment,
  options: Omit<RoundOptions, 'historyFile' | 'progress'>,
): PlannedFault[] {
  const { seed, durationMs, faultsPerSecond: perSecond, faults } = options;
  return faults ? [...faults] : planFaults({ seed, durationMs, kinds: kindsFor(deployment, options.only), perSecond });
}

/** Injects the planned faults at their times and heals each; resolves when everything serves again. */
async function playFaults(deployment: Deployment, recorder: Recorder, options: RoundOptions): Promise<void> {
  const [startedAt, plan] = [performance.now(), planOf(deployment, options)];
  /** The latest fault per group: on a busy machine a restart can last until the next fault is due. */
  const latest = new Map<string, Promise<void>>();
  const playing = plan.map((fault) => {
    const before = latest.get(fault.group);
    const played = play(deployment, recorder, { fault, before, progress: options.progress });
    latest.set(fault.group, played);
    return played;
  });
  // Every fault is healed before a failure ends the round: a later restart would outlive it.
  const failure = (await Promise.allSettled(playing)).find(({ status }) => status === 'rejected');
  await delay(Math.max(0, options.durationMs - (performance.now() - startedAt)));
  if (failure?.status === 'rejected') throw failure.reason;
  await recordFailures(deployment, recorder);
  // Such a process is started again, as by an orchestrator, so that the rest can be checked.
  const ended = deployment.stack.all.filter(({ running }) => !running);
  await Promise.all(ended.map((process) => startAgain(process)));
}

async function play(
  deployment: Deployment,
  recorder: Recorder,
  {
    fault,
    before,
    progress,
  }: {
    readonly fault: PlannedFault;
    readonly before: Promise<void> | undefined;
    readonly progress: (line: string) => void;
  },
): Promise<void> {
  const { id, kind, target, at, forMs } = fault;
  await Promise.all([delay(at), before]);
  progress(`${kind} of ${target} for ${forMs} ms`);
  recorder.add({ t: 'fault', id, kind, target });
  // Before a kill, which would hide that the process had already ended.
  await recordFailures(deployment, recorder);
  const heal = await begin(deployment, fault);
  await delay(forMs);
  await heal();
  recorder.add({ t: 'healed', id });
}

async function recordFailures(deployment: Deployment, recorder: Recorder): Promise<void> {
  for (const what of await deployment.failures()) recorder.write({ t: 'process', what });
}
