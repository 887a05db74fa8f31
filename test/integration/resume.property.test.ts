import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { ConnectionRegistry } from '../../src/cluster/connection-registry.ts';
import { Attachment, type AttachmentEvents } from '../../src/connections/attachment.ts';
import { LiveAttachments } from '../../src/connections/live-attachments.ts';
import { systemClock } from '../../src/lib/clock.ts';
import type { Identity } from '../../src/protocol/identity.ts';
import type { LogEntry } from '../../src/protocol/messages.ts';
import { type Core, silentLogger, startCore, startTail, thinking, tokenDeps } from '../support/core.ts';
import { freshUserId } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const NODES = 3;

/** Steps between the writer's appends. */
type Step =
  | { readonly kind: 'append'; readonly count: number }
  | { readonly kind: 'move'; readonly node: number }
  | { readonly kind: 'drop' }
  | { readonly kind: 'resume' }
  /** Cuts the node's subscription, like a network fault. */
  | { readonly kind: 'cut'; readonly node: number }
  | { readonly kind: 'pause'; readonly ms: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 5, arbitrary: fc.record({ kind: fc.constant('append' as const), count: fc.integer({ min: 1, max: 40 }) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('move' as const), node: fc.nat(NODES - 1) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('drop' as const) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('resume' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('cut' as const), node: fc.nat(NODES - 1) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('pause' as const), ms: fc.integer({ min: 1, max: 15 }) }) },
);

/**
 * A client that keeps its position: it moves between nodes, loses its connection, resumes at any moment, and records
 * each event. It ignores events that an abandoned connection still delivers.
 */
class MovingClient {
  readonly received: number[] = [];
  #connection = 0;
  #session: Attachment | undefined;
  #epoch: string | undefined;
  readonly #connect: (events: AttachmentEvents) => Attachment;

  constructor(connect: (node: number, events: AttachmentEvents) => Attachment) {
    let node = 0;
    this.#connect = (events) => connect(node, events);
    this.moveTo = async (next) => {
      node = next;
      await this.#reconnect();
    };
  }

  readonly moveTo: (node: number) => Promise<void>;

  get last(): number {
    return this.received.at(-1) ?? 0;
  }

  drop(): void {
    this.#connection += 1;
    this.#session?.detach();
    this.#session = undefined;
  }

  /**
   * Resumes in band on the live connection. Everything after `last` is sent again, and events in flight must not arrive
   * twice.
   */
  async resume(): Promise<void> {
    const session = this.#session;
    if (!session || this.#epoch === undefined) return;
    await session.cursor.resume(this.#position(this.#epoch), (result) => expect(result.resumed).toBe(true));
  }

  #position(epoch: string) {
    return { after: this.last, epoch, allowed: Promise.resolve() };
  }

  /** A node that cannot subscribe refuses for the moment; the client retries until it succeeds. */
  #reconnect(): Promise<void> {
    return until(
      async () => {
        await this.#connectOnce();
        return true;
      },
      { everyMs: 5, label: 'a connection' },
    ).then(() => undefined);
  }

  async #connectOnce(): Promise<void> {
    this.drop();
    const connection = this.#connection;
    const session = this.#connect({
      closed: false,
      details: { node: 'n', endpoint: '/test', opened_at: '' },
      deliver: (entry: LogEntry) => {
        if (connection === this.#connection) this.received.push(entry.seq);
      },
      onReplayGap: (loss) => expect(loss).toBeUndefined(),
      writable: async () => true,
      onTerminated: () => undefined,
      onError: (error) => expect(error).toBeUndefined(),
      onPlanChanged: () => undefined,
      onTokenChanged: () => undefined,
      onPublished: () => undefined,
    });
    this.#session = session;
    const admission = await session.attach();
    this.#epoch ??= admission?.epoch ?? '';
    await session.cursor.resume(this.#position(this.#epoch), (result) => expect(result.resumed).toBe(true));
    session.cursor.unpause();
  }
}

async function run(core: Core, nodes: Awaited<ReturnType<typeof startTail>>[], steps: readonly Step[]): Promise<void> {
  const identity = { userId: freshUserId(), plan: 'pro', tokenId: 'jti', tokenIssuedAt: Date.now() } as Identity;
  const registry = new ConnectionRegistry(core, { leaseMs: 30_000, maxConnectionsPerUser: 3 });
  let connections = 0;
  const client = new MovingClient((node, events) => {
    connections += 1;
    const liveTail = nodes[node]?.tail;
    if (!liveTail) throw new Error(`no node ${node}`);
    const deps = {
      registry,
      liveAttachments: new LiveAttachments({ revoked: { has: () => false } }),
      liveTail,
      eventLog: core.eventLog,
      plans: core.plans,
      clock: systemClock,
      logger: silentLogger,
      ...tokenDeps(core),
    };
    return new Attachment(deps, { connectionId: `${identity.userId}_${connections}`, identity }, events);
  });
  await client.moveTo(0);
  let appended = 0;
  const writes: Promise<unknown>[] = [];
  for (const { kind, ...what } of steps) {
    if (kind === 'append') {
      // Not awaited: the log grows during the client's next steps.
      const { count } = what as { count: number };
      for (let i = 0; i < count; i++) {
        appended += 1;
        writes.push(core.log.append({ userId: identity.userId, events: [thinking(`${appended}`)] }));
      }
    }
    if (kind === 'move') await client.moveTo((what as { node: number }).node);
    if (kind === 'drop') client.drop();
    if (kind === 'resume') await client.resume();
    if (kind === 'cut') nodes[(what as { node: number }).node]?.subscriber.disconnect(true);
    if (kind === 'pause') await new Promise((resolve) => setTimeout(resolve, (what as { ms: number }).ms));
  }
  await Promise.all(writes);
  await client.moveTo(NODES - 1);
  await until(() => client.last === appended, { timeoutMs: 10_000, label: `event ${appended} of ${client.last}` });
  client.drop();
  expect(client.received).toEqual(Array.from({ length: appended }, (_, i) => i + 1));
}

describe('resume', () => {
  it('delivers each event once and in order to a client that moves, drops and resumes', async () => {
    const core = await startCore();
    const nodes = await Promise.all(Array.from({ length: NODES }, () => startTail(core)));
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 30 }), (steps) => run(core, nodes, steps)),
      { numRuns: Number(process.env.RESUME_RUNS ?? 40), interruptAfterTimeLimit: 60_000 },
    );
  }, 120_000);
});
