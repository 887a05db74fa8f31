import { Random } from '../../test/support/chaos/random.ts';
import { ClientMember, TRANSPORTS } from './client-member.ts';
import type { MemberDeps } from './member.ts';
import { RoamingTransport } from './roaming-transport.ts';
import type { User } from './users.ts';

/** A client whose connection moves between transports and nodes in the middle of runs, and sleeps. */
export class MobileMember extends ClientMember {
  readonly #roaming: RoamingTransport;

  constructor(deps: MemberDeps, user: User, device: string) {
    const transports = Object.values(TRANSPORTS).map((transport) => transport());
    const roaming = new RoamingTransport(transports, deps.urls, new Random(deps.seed));
    super(deps, user, device, roaming.open);
    this.#roaming = roaming;
  }

  override async work(): Promise<void> {
    await Promise.all([super.work(), this.#roaming.move(this.deps.signal)]);
  }
}
