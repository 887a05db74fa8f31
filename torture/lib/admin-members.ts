import { setTimeout as delay } from 'node:timers/promises';
import { CallingClient, Lost } from '../../test/support/chaos/calling-client.ts';
import { CAPS } from './catalogues.ts';
import { Member, type MemberDeps, type Outcome } from './member.ts';
import { mintedSession, type User } from './users.ts';

const ADMIN_MS = 5_000;
const SERVED_MS = 3_000;
const PROBE_MS = 150;
/** A revoked session is used this long after the answer, ms: longer than the bound of the checker. */
const AFTER_MS = 8_000;

export interface AdminDeps extends MemberDeps {
  /** Addresses of the gateways, without a load balancer. */
  readonly gateways: readonly { readonly name: string; readonly url: string }[];
  readonly serviceToken: () => Promise<string>;
}

abstract class AdminMember extends Member {
  readonly #admin: AdminDeps;

  constructor(deps: AdminDeps, user: User, name: string) {
    super(deps, user, name);
    this.#admin = deps;
  }

  protected get gateway(): { readonly name: string; readonly url: string } {
    const { gateways } = this.#admin;
    return gateways[this.random.below(gateways.length)] ?? { name: '', url: '' };
  }

  /** Sends an admin action to any gateway. */
  protected async act(method: 'PUT' | 'POST', path: string, body: object): Promise<Outcome> {
    const headers = {
      authorization: `Bearer ${await this.#admin.serviceToken()}`,
      'content-type': 'application/json',
    };
    const signal = AbortSignal.timeout(ADMIN_MS);
    const response = await fetch(this.gateway.url + path, { method, headers, body: JSON.stringify(body), signal });
    const text = await response.text();
    if (response.ok) return { t: 'ok' };
    // A server error may have had an effect.
    return { t: response.status >= 500 ? 'unknown' : 'failed', code: `${response.status} ${text.slice(0, 200)}` };
  }
}

/** Changes the plan of a user, whose connections then may be too many. */
export class PlanMember extends AdminMember {
  protected override readonly maxPauseMs: number = 2_500;

  constructor(deps: AdminDeps, user: User) {
    super(deps, user, `${user.id}-plan`);
  }

  protected async next(): Promise<void> {
    const plans = Object.keys(CAPS);
    const plan = plans[this.random.below(plans.length)] ?? '';
    await this.operation('plan', { key: this.user.id, value: plan }, () => {
      return this.act('PUT', `/v1/users/${this.user.id}/plan`, { plan });
    });
  }
}

/** Uses sessions over connections, handshakes and HTTP, revokes them, and uses them on. */
export class RevokedMember extends AdminMember {
  readonly #sign: Parameters<typeof mintedSession>[0];

  constructor(deps: AdminDeps, user: User, sign: Parameters<typeof mintedSession>[0]) {
    super(deps, user, `${user.id}-sessions`);
    this.#sign = sign;
  }

  protected async next(): Promise<void> {
    const { token, session } = mintedSession(this.#sign, this.user.id);
    const ended = new AbortController();
    const using = [this.#live(session, token, ended.signal), this.#anew(session, token, ended.signal)];
    await delay(this.random.below(2_000));
    for (let isRevoked = false; !isRevoked && !this.deps.signal.aborted; ) {
      const { t } = await this.operation('revoke', { key: session }, () => {
        return this.act('POST', '/v1/tokens/revoke', { sid: session });
      });
      isRevoked = t === 'ok';
      if (!isRevoked) await delay(PROBE_MS);
    }
    await delay(AFTER_MS, undefined, { signal: this.deps.signal }).catch(() => undefined);
    ended.abort();
    await Promise.all(using);
  }

  /** Sends requests on one connection, and opens another one when it is lost. */
  async #live(session: string, token: string, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      let client: CallingClient | undefined;
      const { name: node, url } = this.gateway;
      try {
        const openedFrom = this.deps.recorder.now();
        ({ client } = await CallingClient.open({ transport: 'ws', url, token }));
        this.deps.recorder.add({ t: 'served', session, from: openedFrom, via: 'handshake', node });
        while (!signal.aborted) {
          const from = this.deps.recorder.now();
          await client.request('ping', {}, ({ type }) => type === 'pong', SERVED_MS);
          this.deps.recorder.add({ t: 'served', session, from, via: 'connection', node });
          await delay(PROBE_MS);
        }
      } catch (error) {
        if (!(error instanceof Lost)) throw error;
        await delay(PROBE_MS);
      } finally {
        client?.end();
      }
    }
  }

  /** Authenticates each request anew. */
  async #anew(session: string, token: string, signal: AbortSignal): Promise<void> {
    const headers = { authorization: `Bearer ${token}` };
    while (!signal.aborted) {
      const from = this.deps.recorder.now();
      const { name: node, url } = this.gateway;
      const answered = fetch(`${url}/v1/usage`, { headers, signal: AbortSignal.timeout(SERVED_MS) });
      const isServed = await answered.then(
        async (response) => {
          await response.arrayBuffer().catch(() => undefined);
          return response.ok;
        },
        () => false,
      );
      if (isServed) this.deps.recorder.add({ t: 'served', session, from, via: 'http', node });
      await delay(PROBE_MS);
    }
  }
}
