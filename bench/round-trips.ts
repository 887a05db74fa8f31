import { setTimeout as delay } from 'node:timers/promises';
import { type Client, connectSocketIo, connectWs } from './lib/clients.ts';
import { Deployment } from './lib/deployment.ts';
import { type Flight, RedisProxy } from './lib/redis-proxy.ts';
import { type BenchOptions, type Report, runAsProgram } from './lib/report.ts';
import { median } from './lib/statistics.ts';

/** Long enough for follow-up commands of an operation (a release, an unsubscribe). */
const QUIET_MS = 50;
/** `RENEW_BATCH` of src/cluster/connection-registry.ts is 200, so this many users need two flights. */
const MANY_USERS = 250;
/** The shortest lease that the configuration allows; src/connections/hub.ts renews it accordingly often. */
const LEASE_SECONDS = 2;
const RENEWALS_PER_LEASE = 3;

/** Periodic commands of a gateway that belong to no operation: keepalives and the poll for invalidations (XRANGE). */
const BY_THE_CLOCK: ReadonlySet<string> = new Set(['ping', 'info', 'renewNode', 'xrange']);

/** Flights to Redis per operation, as a median over several; see `Flight` for the definition. */
export interface RoundTrips {
  readonly firstConnect: number;
  readonly furtherConnect: number;
  readonly socketIoConnect: number;
  readonly inBandAuth: number;
  /** A ticket reveals its user only after Redis has redeemed it, which precedes the two flights of a first connect. */
  readonly ticketConnect: number;
  readonly ticketPurchase: number;
  readonly ping: number;
  readonly agentRequest: number;
  readonly agentCancel: number;
  /** Of a tool that sends nothing to Redis itself: the reservation beside the message limit, and the commit. */
  readonly toolCall: number;
  readonly runStatus: number;
  readonly usageSummary: number;
  readonly toolsList: number;
  readonly threadsList: number;
  readonly threadHistory: number;
  readonly resume: number;
  readonly lastDisconnect: number;
  readonly furtherDisconnect: number;
  /** Per durable event that a worker appends. */
  readonly appendedEvent: number;
  /** Of one round of lease renewals. */
  readonly renewalOfThreeUsers: number;
  readonly renewalOfManyUsers: number;
}

export interface RoundTripCount {
  readonly counts: RoundTrips;
  /** Per operation, the commands of each flight of its last repetition. */
  readonly flights: Readonly<Record<string, readonly string[]>>;
  /** Commands of the worker for one run. */
  readonly worker: Readonly<Record<string, number>>;
}

/** Counts the flights of a running gateway and worker; each process reaches Redis through its own proxy. */
export async function countRoundTrips({ repetitions = 7 } = {}): Promise<RoundTripCount> {
  const deployment = await Deployment.start();
  const proxies: RedisProxy[] = [];
  const proxy = async () => {
    const started = await RedisProxy.start(deployment.redis.port);
    proxies.push(started);
    return started;
  };
  try {
    const [forGateway, forWorker, forRenewing] = [await proxy(), await proxy(), await proxy()];
    // A lease this long is not renewed during the count.
    const quiet = { REDIS_URL: forGateway.url, CONNECTION_LEASE_SECONDS: '600' };
    const often = { REDIS_URL: forRenewing.url, CONNECTION_LEASE_SECONDS: String(LEASE_SECONDS) };
    const [{ url }, renewing] = await Promise.all([
      deployment.gateway(quiet),
      deployment.gateway(often),
      deployment.worker({ REDIS_URL: forWorker.url }),
    ]);

    const counter = new Counter(forGateway);
    // The first round loads the scripts into Redis.
    for (let round = 0; round <= repetitions; round++) {
      if (round === 1) counter.forget();
      await countOperations(counter, url, (user) => deployment.token(user));
    }
    const worker = await countRuns(forWorker, url, deployment.token('runs'), repetitions);
    const renewals = await countRenewals(forRenewing, renewing.url, (user) => deployment.token(user));
    const counts = { ...counter.medians(), appendedEvent: worker.flightsPerEvent, ...renewals };
    return { counts, flights: counter.flights, worker: worker.commands };
  } finally {
    await deployment.close();
    for (const one of proxies) await one.close();
  }
}

type GatewayOperation = Exclude<keyof RoundTrips, 'appendedEvent' | 'renewalOfThreeUsers' | 'renewalOfManyUsers'>;

/** Counts the flights of one operation at a time. */
class Counter {
  readonly flights: Record<string, string[]> = {};
  readonly #proxy: RedisProxy;
  readonly #counts = new Map<GatewayOperation, number[]>();

  constructor(proxy: RedisProxy) {
    this.#proxy = proxy;
  }

  async count<T>(operation: GatewayOperation, work: () => T | Promise<T>): Promise<T> {
    await delay(QUIET_MS);
    this.#proxy.take();
    const result = await work();
    await delay(QUIET_MS);
    const flights = this.#proxy.take().filter(({ commands }) => !commands.every((name) => BY_THE_CLOCK.has(name)));
    this.#counts.set(operation, [...(this.#counts.get(operation) ?? []), flights.length]);
    this.flights[operation] = flights.map(describeFlight);
    return result;
  }

  forget(): void {
    this.#counts.clear();
  }

  medians(): Record<GatewayOperation, number> {
    const entries = [...this.#counts].map(([operation, counts]) => [operation, median(counts)]);
    return Object.fromEntries(entries) as Record<GatewayOperation, number>;
  }
}

async function countOperations(counter: Counter, url: string, token: (user: string) => string): Promise<void> {
  const user = `user-${Math.random().toString(36).slice(2)}`;
  const first = await counter.count('firstConnect', () => connectWs(url, token(user)));
  const second = await counter.count('furtherConnect', () => connectWs(url, token(user)));
  const other = await counter.count('socketIoConnect', () => connectSocketIo(url, token(`${user}-io`)));
  const unauthenticated = await connectWs(url);
  await counter.count('inBandAuth', () =>
    ask(unauthenticated, 'auth', 'auth_success', { token: token(`${user}-guest`) }),
  );
  const buyer = token(`${user}-buyer`);
  const ticket = await counter.count('ticketPurchase', () => buyTicket(url, buyer));
  const authenticated = await counter.count('ticketConnect', () => connectWs(url, undefined, ticket));
  await counter.count('ping', () => ask(first, 'ping', 'pong'));
  const request = { message: 'Hello', thread_id: 'thread_1' };
  const ended = first.next('agent_completed');
  const { run_id } = await counter.count('agentRequest', () => ask(first, 'agent_request', 'agent_accepted', request));
  await ended;
  await counter.count('agentCancel', () => ask(first, 'agent_cancel', 'cancel_accepted', { run_id }));
  await counter.count('runStatus', () => ask(first, 'run_status', 'run_status', { run_id }));
  await counter.count('toolCall', () => ask(first, 'tool_call', 'tool_result', { tool: 'list_agents' }));
  await counter.count('usageSummary', () => ask(first, 'usage_summary', 'usage_summary'));
  await counter.count('toolsList', () => ask(first, 'tools_list', 'tools_list'));
  await counter.count('threadsList', () => ask(first, 'threads_list', 'threads_list'));
  const history = { thread_id: 'thread_1' };
  await counter.count('threadHistory', () => ask(first, 'thread_history', 'thread_history', history));
  const from = { after: 0, epoch: first.welcome.epoch };
  await counter.count('resume', () => ask(second, 'resume', 'resumed', from));
  await counter.count('furtherDisconnect', () => second.close());
  await counter.count('lastDisconnect', () => first.close());
  for (const client of [other, unauthenticated, authenticated]) client.close();
}

async function buyTicket(url: string, token: string): Promise<string> {
  const response = await fetch(`${url}/v1/tickets`, { method: 'POST', headers: { authorization: `Bearer ${token}` } });
  return ((await response.json()) as { ticket: string }).ticket;
}

function ask(client: Client, type: string, answer: string, fields = {}): Promise<Record<string, unknown>> {
  const answered = client.next(answer);
  client.send(type, fields);
  return answered;
}

/**
 * A worker is never idle: ledger ingestion and BullMQ send commands all the time. Therefore this counts the flights
 * with an append, and the commands that belong to a run with one tool call.
 */
async function countRuns(proxy: RedisProxy, url: string, token: string, runs: number) {
  const client = await connectWs(url, token);
  /** Returns the last `seq` of the log after one more run. */
  const run = async () => {
    const ended = client.next('agent_completed');
    client.send('agent_request', { message: 'How is my workload doing?' });
    return Number((await ended).seq);
  };
  const before = await run();
  await delay(QUIET_MS);
  proxy.take();
  let after = before;
  for (let i = 0; i < runs; i++) after = await run();
  await delay(QUIET_MS);
  const flights = proxy.take();
  client.close();
  const events = after - before;
  const appending = flights.filter(({ commands }) => commands.includes('appendEvents'));
  const counted = ['appendEvents', 'claimRun', 'lrange', 'xreadgroup', 'xdel', 'xack'];
  const commands = flights.flatMap((flight) => flight.commands);
  const perRun = counted.map((name) => [name, commands.filter((one) => one === name).length / runs] as const);
  return {
    flightsPerEvent: appending.length / events,
    commands: { 'durable events': events / runs, ...Object.fromEntries(perRun) },
  };
}

/** Counts the flights with `renewLeases` over a few rounds of renewals. */
async function countRenewals(proxy: RedisProxy, url: string, token: (user: string) => string) {
  const clients: Client[] = [];
  const connect = async (from: number, to: number) => {
    const users = Array.from({ length: to - from }, (_, at) => `renewed-${from + at}`);
    clients.push(...(await Promise.all(users.map((user) => connectWs(url, token(user))))));
  };
  await connect(0, 3);
  const renewalOfThreeUsers = await flightsPerRound(proxy);
  await connect(3, MANY_USERS);
  const renewalOfManyUsers = await flightsPerRound(proxy);
  for (const client of clients) client.close();
  return { renewalOfThreeUsers, renewalOfManyUsers };
}

async function flightsPerRound(proxy: RedisProxy): Promise<number> {
  const rounds: number[] = [];
  for (let round = 0; round < 3; round++) {
    proxy.take();
    await delay((LEASE_SECONDS * 1_000) / RENEWALS_PER_LEASE);
    rounds.push(proxy.take().filter(({ commands }) => commands.includes('renewLeases')).length);
  }
  return median(rounds);
}

/** Formats a flight: `commands: limiter + startRun + bullmq`. A repeated command appears once, with its count. */
function describeFlight({ connection, commands }: Flight): string {
  const numbers = new Map<string, number>();
  for (const name of commands) numbers.set(name, (numbers.get(name) ?? 0) + 1);
  const lines = [...numbers].map(([name, number]) => (number === 1 ? name : `${number} × ${name}`));
  return `${connection().replace('tollgate-', '')}: ${lines.join(' + ')}`;
}

export async function roundTrips({ quick }: BenchOptions): Promise<Report> {
  const counted = await countRoundTrips({ repetitions: quick ? 1 : 7 });
  const { counts, flights, worker } = counted;
  return {
    name: 'Redis round trips',
    about: [
      'Counted by a proxy between each process and Redis, which delays replies by 5 ms. A round trip is a flight: what',
      'one connection sends until the first byte of a reply. Medians; scripts are loaded before.',
    ].join('\n'),
    tables: [
      {
        title: 'Flights per operation',
        header: ['operation', 'flights', 'commands'],
        rows: Object.entries(counts).map(([name, number]) => [
          name,
          number.toFixed(number % 1 === 0 ? 0 : 2),
          (flights[name] ?? []).join(' | '),
        ]),
      },
      {
        title: 'Commands of the worker per run',
        header: ['command', 'number'],
        rows: Object.entries(worker).map(([name, number]) => [name, number.toFixed(1)]),
      },
    ],
    data: counted,
  };
}

if (import.meta.main) await runAsProgram([roundTrips]);
