import { beforeAll, describe, expect, it } from '@jest/globals';
import { Admissions, type Admitted } from '../support/admissions.ts';
import { type CappedClient, connectAll, connectBy, ROADS } from '../support/capped-clients.ts';
import { reportMs } from '../support/figures.ts';
import { type Leases, openLeases } from '../support/leases.ts';
import { closeAfter } from '../support/open-resources.ts';
import { slowRedis } from '../support/slow-redis.ts';
import { oneRedisUrl, useStack } from '../support/stack.ts';
import { StackProcesses } from '../support/stack-processes.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const NODES = 3;
const CAP = 3;
const CLIENTS = 20;
/** The promise: so long after the last connect, exactly the newest are left. */
const CONVERGED_MS = 1_000;
/** `npm run faults` asks for fifty. */
const ROUNDS = Number(process.env.FAULT_ROUNDS ?? 2);
/** Rounds that wait for seconds. */
const SLOW_ROUNDS = Math.ceil(ROUNDS / 10);

/** One user, the clients that have set out so far, and what Redis made of them. */
class Race {
  readonly of: StackProcesses['addresses'];
  readonly clients: CappedClient[] = [];
  readonly token: string;
  readonly #userId: string;
  readonly #admissions: Admissions;
  readonly #leases: Leases;

  constructor(stack: StackProcesses, admissions: Admissions, leases: Leases) {
    this.of = stack.addresses;
    const { token, userId } = mintToken({}, { stack: this.of });
    this.token = token;
    this.#userId = userId;
    this.#admissions = admissions;
    this.#leases = leases;
  }

  async connect(count: number, { nodes = [0, 1, 2], leaving = 0 } = {}): Promise<void> {
    const routes = Array.from({ length: count }, (_, i) => ({
      road: any(ROADS),
      node: any(nodes),
      leaves: i < leaving,
    }));
    this.clients.push(...(await connectAll(this.of, this.token, routes)));
  }

  /** By connection, in the order of their places; one that was admitted again has kept its own. */
  get admitted(): Admitted[] {
    const first = new Map<string, Admitted>();
    for (const one of this.#admissions.of(this.#userId)) {
      if (!first.has(one.connectionId)) first.set(one.connectionId, one);
    }
    return [...first.values()].toSorted((a, b) => a.place - b.place);
  }

  /** Resolves when all clients have had their turn, with the time of the last. */
  async allAdmitted(): Promise<number> {
    await until(() => this.admitted.length === this.clients.length, {
      label: `${this.clients.length} admissions`,
      timeoutMs: 10_000,
    });
    return Math.max(...this.admitted.map(({ at }) => at));
  }

  /**
   * That the newest are left, alive and in the registry, and every other was told and stays away.
   * @returns ms from the last admission, or from `since`, to the end of the last evicted connection
   */
  async expectOnlyNewest(since?: number): Promise<number> {
    const lastAt = since ?? (await this.allAdmitted());
    const told = () => this.clients.filter((client) => client.told && client.closedAt !== undefined);
    await until(() => told().length === this.clients.length - CAP, { label: 'the evictions', timeoutMs: 10_000 });
    const convergedMs = Math.max(...told().map(({ closedAt = Number.NaN }) => closedAt)) - lastAt;
    const newest = this.admitted.slice(-CAP).map(({ connectionId }) => connectionId);
    const left = this.clients.filter(({ closedAt }) => closedAt === undefined);
    for (const { client } of left) await client.welcome();
    expect(left.map(({ connectionId }) => connectionId).toSorted()).toEqual(newest.toSorted());
    expect((await this.#leases.live(this.#userId)).toSorted()).toEqual(newest.toSorted());
    await expectAlive(left);
    for (const client of told()) await expectTold(client);
    return convergedMs;
  }

  /** The leases of the user, as Redis has them. */
  held(): Promise<string[]> {
    return this.#leases.live(this.#userId);
  }
}

function any<T>(values: readonly T[]): T {
  return values[Math.floor(Math.random() * values.length)] as T;
}

async function expectAlive(clients: readonly CappedClient[]): Promise<void> {
  for (const { client } of clients) {
    const from = client.mark();
    client.send('ping');
    await client.waitFor('pong', { from });
  }
}

async function expectTold({ client, road, welcomes }: CappedClient): Promise<void> {
  const { code, reason } = await client.closed;
  if (road !== 'socketio') expect({ code, reason }).toEqual({ code: 4001, reason: 'CONNECTION_LIMIT_EXCEEDED' });
  // One that was evicted before it had been welcomed was never connected.
  else if (welcomes > 0) expect(reason).toBe('io server disconnect');
  else expect(client.refusal?.data).toMatchObject({ code: 'CONNECTION_LIMIT_EXCEEDED', retryable: false });
}

/**
 * That nobody who was evicted comes back by itself: a client of Socket.IO that really lost its connection, and thinks
 * the same of when to return, has been back twice meanwhile.
 */
async function expectNobodyReturns(race: Race): Promise<void> {
  const { token } = mintToken({}, { stack: race.of });
  const lost = await connectBy('socketio', race.of.gateways[0]?.url ?? '', token);
  for (const welcomes of [1, 2]) {
    await until(() => lost.welcomes === welcomes, { label: `welcome ${welcomes} of the lost client` });
    lost.client.terminate();
  }
  await until(() => lost.welcomes === 3, { label: 'the lost client is back' });
  await lost.client.close();
  for (const { told, welcomes } of race.clients) if (told) expect(welcomes).toBeLessThanOrEqual(1);
  expect(race.admitted).toHaveLength(race.clients.length);
}

function useRaces(stack: () => StackProcesses): () => Race {
  let admissions: Admissions;
  let leases: Leases;
  beforeAll(async () => {
    admissions = await Admissions.watch(stack().addresses);
    leases = await openLeases(stack().addresses);
  });
  return () => new Race(stack(), admissions, leases);
}

async function closeAll(race: Race): Promise<void> {
  await Promise.all(race.clients.map(({ client }) => client.close()));
}

describe('twenty clients of one user that connect to three nodes at once', () => {
  const stack = useStack({ gateways: NODES, workers: 0 });
  const newRace = useRaces(stack);

  it(
    `B12 are the newest three a second later, and the others were told and stay away (${ROUNDS} rounds)`,
    async () => {
      const figures: number[] = [];
      for (let round = 0; round < ROUNDS; round++) {
        const race = newRace();
        await race.connect(CLIENTS);
        const convergedMs = await race.expectOnlyNewest();
        expect(convergedMs).toBeLessThan(CONVERGED_MS);
        figures.push(convergedMs);
        await expectNobodyReturns(race);
        await closeAll(race);
      }
      reportMs('twenty connects at once', figures);
    },
    30_000 + ROUNDS * 10_000,
  );

  it(
    `B12 B26 are never more than three, the newest first, when half of them leave on the way (${ROUNDS} rounds)`,
    async () => {
      for (let round = 0; round < ROUNDS; round++) {
        const race = newRace();
        await race.connect(CAP);
        const connecting = race.connect(CLIENTS, { leaving: CLIENTS / 2 });
        for (const client of race.clients) client.leave();
        await connecting;
        const left = () => race.clients.filter(({ closedAt }) => closedAt === undefined);
        const ids = () => left().map(({ connectionId }) => connectionId ?? 'not welcomed yet');
        await until(async () => `${ids().toSorted()}` === `${(await race.held()).toSorted()}`, {
          label: 'the registry to hold those that are connected',
        });
        // None can be left: whoever stayed may have made room for newer ones, who then went.
        expect(left().length).toBeLessThanOrEqual(CAP);
        await expectAlive(left());
        const place = (id = '') => race.admitted.find(({ connectionId }) => connectionId === id)?.place ?? 0;
        const evicted = race.clients.filter(({ told, connectionId }) => told && connectionId);
        const newestEvicted = Math.max(0, ...evicted.map(({ connectionId }) => place(connectionId)));
        for (const id of ids()) expect(place(id)).toBeGreaterThan(newestEvicted);
        await closeAll(race);
      }
    },
    30_000 + ROUNDS * 5_000,
  );

  it.each([
    ['less than', 2_000],
    ['longer than', 4_000],
  ])(
    `B12 are the newest three although a node with others sleeps for %s its leases last (${SLOW_ROUNDS} rounds)`,
    async (_than, sleepMs) => {
      const figures: number[] = [];
      for (let round = 0; round < SLOW_ROUNDS; round++) {
        const race = newRace();
        await race.connect(CAP, { nodes: [0] });
        // The node has the answer of Redis too: stopped before that, it gives up the admission when it wakes.
        for (const { client } of race.clients) await client.welcome();
        const pid = stack().gateways[0]?.pid ?? 0;
        process.kill(pid, 'SIGSTOP');
        const stoppedAt = performance.now();
        try {
          await race.connect(CLIENTS - CAP, { nodes: [1, 2] });
          await race.allAdmitted();
          await until(() => performance.now() - stoppedAt >= sleepMs, { timeoutMs: sleepMs + 1_000 });
        } finally {
          process.kill(pid, 'SIGCONT');
        }
        const wokenAt = performance.now();
        figures.push(await race.expectOnlyNewest(wokenAt));
        await closeAll(race);
      }
      // One renewal, a third of the lease of 3 s, beyond the promise.
      expect(Math.max(...figures)).toBeLessThan(CONVERGED_MS + 1_000);
      reportMs(`a node asleep for ${sleepMs} ms`, figures);
    },
    30_000 + SLOW_ROUNDS * 10_000,
  );
});

describe('twenty clients of one user while Redis is slow to reach', () => {
  let stack: StackProcesses;
  beforeAll(async () => {
    const redisUrl = await oneRedisUrl();
    const REDIS_URL = await slowRedis(redisUrl, { maxDelayMs: 40 });
    stack = await StackProcesses.start({ gateways: NODES, workers: 0, env: { REDIS_URL }, redisUrl });
    closeAfter('file', () => stack.close());
  });
  const newRace = useRaces(() => stack);

  it(
    `B12 are the newest three a second later (${ROUNDS} rounds)`,
    async () => {
      const figures: number[] = [];
      for (let round = 0; round < ROUNDS; round++) {
        const race = newRace();
        await race.connect(CLIENTS);
        const convergedMs = await race.expectOnlyNewest();
        expect(convergedMs).toBeLessThan(CONVERGED_MS);
        figures.push(convergedMs);
        await closeAll(race);
      }
      reportMs('twenty connects, Redis up to 80 ms away', figures);
    },
    30_000 + ROUNDS * 10_000,
  );
});
