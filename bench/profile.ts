import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { PROJECT_ROOT } from '../scripts/lib/processes.ts';
import { Deployment } from './lib/deployment.ts';
import { startLoadClient, type TransportName } from './lib/load-client.ts';
import { type BenchOptions, type Report, type ReportTable, runAsProgram } from './lib/report.ts';
import { startLoad } from './price/load.ts';
import { TURNS_PER_SECOND } from './price/measures.ts';

const SHOWN = 25;
const ROUNDS = 3;

interface Frame {
  readonly functionName: string;
  readonly url: string;
  readonly lineNumber: number;
}

interface CpuProfile {
  readonly nodes: readonly { readonly id: number; readonly callFrame: Frame; readonly children?: readonly number[] }[];
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

type Phase = 'connect' | 'deliver';

/** Runs a gateway under the profiler with one kind of load: connects and disconnects, or events. */
async function profile(transport: TransportName, phase: Phase, { quick }: BenchOptions): Promise<CpuProfile> {
  const folder = mkdtempSync(join(tmpdir(), 'tollgate-profile-'));
  const deployment = await Deployment.start();
  const client = startLoadClient(deployment.redis.url);
  try {
    const { url, stop } = await deployment.gateway(underProfiler(folder));
    const users = phase === 'deliver' || quick ? 100 : 2_000;
    const userIds = Array.from({ length: users }, (_, at) => `profiled-${at}`);
    const tokens = userIds.map((userId) => deployment.token(userId));
    for (let round = 0; round < (phase === 'deliver' ? 1 : ROUNDS); round++) {
      await client.send({ do: 'connect', transport, url, tokens, userIds });
      await delay(400);
      if (phase === 'deliver')
        await client.send({ do: 'deliver', transport, events: quick ? 500 : 30_000, perSecond: 3_000 });
      await client.send({ do: 'disconnect' });
      await delay(500);
    }
    await stop();
    return readProfile(folder);
  } finally {
    client.close();
    await deployment.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Runs a gateway and a worker under the profiler while clients ask for turns with one tool call each. */
async function profileTurns({ quick }: BenchOptions): Promise<readonly [gateway: CpuProfile, worker: CpuProfile]> {
  const folders = [0, 1].map(() => mkdtempSync(join(tmpdir(), 'tollgate-profile-')));
  const deployment = await Deployment.start();
  const settings = {
    redisUrl: deployment.redis.url,
    publishing: 'append',
    root: PROJECT_ROOT,
    transport: 'ws',
  } as const;
  const load = startLoad(settings);
  try {
    const [gateway, worker] = await Promise.all([
      deployment.gateway(underProfiler(folders[0])),
      deployment.worker(underProfiler(folders[1])),
    ]);
    const users = Array.from({ length: quick ? 10 : 200 }, (_, at) => `profiled-${at}`);
    const tokens = users.map((id) => ({ id, token: deployment.token(id) }));
    await load.send({ do: 'connect', url: gateway.url, users: tokens });
    await load.send({ do: 'turns', count: quick ? 20 : 1_500, perSecond: TURNS_PER_SECOND });
    await load.send({ do: 'disconnect' });
    await Promise.all([gateway.stop(), worker.stop()]);
    const [ofGateway, ofWorker] = folders.map(readProfile);
    if (!ofGateway || !ofWorker) throw new Error('a process wrote no profile');
    return [ofGateway, ofWorker];
  } finally {
    load.close();
    await deployment.close();
    for (const folder of folders) rmSync(folder, { recursive: true, force: true });
  }
}

function underProfiler(folder: string | undefined): { NODE_OPTIONS: string } {
  return { NODE_OPTIONS: `--cpu-prof --cpu-prof-interval=200 --cpu-prof-dir=${folder}` };
}

function readProfile(folder: string): CpuProfile {
  const [file = ''] = readdirSync(folder);
  return JSON.parse(readFileSync(join(folder, file), 'utf8')) as CpuProfile;
}

/** A function of the profile, and the innermost Tollgate function that called it. */
interface CallSite {
  readonly frame: Frame;
  readonly calledFor: Frame | undefined;
}

function callSitesOf({ nodes }: CpuProfile): Map<number, CallSite> {
  const parents = new Map(nodes.flatMap(({ id, children = [] }) => children.map((child) => [child, id] as const)));
  const frames = new Map(nodes.map(({ id, callFrame }) => [id, callFrame]));
  const calledFor = (id: number): Frame | undefined => {
    for (let at = parents.get(id); at !== undefined; at = parents.get(at)) {
      const frame = frames.get(at);
      if (frame && owner(frame) === OURS) return frame;
    }
    return undefined;
  };
  return new Map(nodes.map(({ id, callFrame }) => [id, { frame: callFrame, calledFor: calledFor(id) }]));
}

/** Sums self time by the name that `name` gives a call site; call sites without a name are left out. */
function selfTimes(profile: CpuProfile, name: (callSite: CallSite) => string | undefined): [string, number][] {
  const callSites = callSitesOf(profile);
  const times = new Map<string, number>();
  for (const [at, id] of profile.samples.entries()) {
    const callSite = callSites.get(id);
    const key = callSite && name(callSite);
    if (key) times.set(key, (times.get(key) ?? 0) + (profile.timeDeltas[at] ?? 0));
  }
  return [...times].sort(([, a], [, b]) => b - a);
}

const OURS = 'ours';

/**
 * Returns the package, `ours`, `node`, or the native part by name, e.g. `(garbage collector)`; undefined while idle.
 */
function owner({ url, functionName }: Frame): string | undefined {
  if (functionName === '(idle)') return undefined;
  if (url.startsWith('node:')) return 'node';
  const inPackages = /node_modules\/((?:@[^/]+\/)?[^/]+)\/(?!.*node_modules\/)/.exec(url)?.[1];
  if (inPackages) return inPackages;
  return url === '' ? functionName || '(native)' : OURS;
}

function describe({ url, lineNumber, functionName }: Frame): string {
  return `${functionName || '(anonymous)'} ${url.replace(`file://${PROJECT_ROOT}`, '')}:${lineNumber + 1}`;
}

function tables(title: string, profile: CpuProfile): ReportTable[] {
  const whose = selfTimes(profile, ({ frame }) => owner(frame));
  const total = whose.reduce((sum, [, time]) => sum + time, 0);
  const rows = (times: [string, number][]) =>
    times.slice(0, SHOWN).map(([name, time]) => [name, (time / 1000).toFixed(0), ((100 * time) / total).toFixed(1)]);
  const ours = selfTimes(profile, ({ frame }) => (owner(frame) === OURS ? describe(frame) : undefined));
  const others = selfTimes(profile, ({ frame, calledFor }) => {
    const ofOthers = calledFor && owner(frame) !== OURS;
    return ofOthers ? `${describe(frame)} for ${describe(calledFor)}` : undefined;
  });
  const header = ['function', 'self ms', '%'];
  return [
    { title: `${title}: self time by owner`, header, rows: rows(whose) },
    { title: `${title}: functions of Tollgate`, header, rows: rows(ours) },
    { title: `${title}: library functions, by the function of Tollgate that called them`, header, rows: rows(others) },
  ];
}

/** Profiles a gateway while clients connect and events are delivered, and gateway and worker during turns. */
export async function profileGateway(options: BenchOptions): Promise<Report> {
  const [gateway, worker] = await profileTurns(options);
  const found: ReportTable[] = [...tables('gateway, turns', gateway), ...tables('worker, turns', worker)];
  for (const transport of ['tollgate-ws', 'tollgate-socket-io'] as const) {
    for (const phase of ['connect', 'deliver'] as const) {
      found.push(...tables(`${transport}, ${phase}`, await profile(transport, phase, options)));
    }
  }
  const about = 'Self time of the gateway under --cpu-prof (its start included), idle time left out.';
  return { name: 'Profile of a gateway', about, tables: found, data: found };
}

if (import.meta.main) await runAsProgram([profileGateway]);
