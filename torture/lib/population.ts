import { type AdminDeps, PlanMember, RevokedMember } from './admin-members.ts';
import { ApprovalMember } from './approval-member.ts';
import { ALLOWANCE, CAPS, MESSAGES_PER_MINUTE } from './catalogues.ts';
import { ChatMember } from './chat-member.ts';
import { ClientMember, TRANSPORTS } from './client-member.ts';
import type { Deployment } from './deployment.ts';
import type { HistoryLine, Recorder } from './history.ts';
import { AgUiMember, McpMember } from './http-members.ts';
import { ChattyMember, QuotaMember, ThreadMember } from './limited-members.ts';
import { CAP } from './limits.ts';
import { MobileMember } from './mobile-member.ts';
import { GreedyMember, RudeMember, SlowMember } from './socket-members.ts';
import { keySetUser, mintedUser, serviceTokens, sessionUser, type User } from './users.ts';

/** One client, or several of one user. */
interface Working {
  /** Resolves when the last operation has ended after the signal. */
  work(): Promise<void>;
  close(): void;
}

export interface Population {
  readonly users: readonly User[];
  readonly members: readonly Working[];
  readonly first: ClientMember | undefined;
  /** Caps, allowances and message limits of the users. */
  readonly limits: readonly Extract<HistoryLine, { t: 'caps' | 'quota' | 'messages' }>[];
  /** Ids of the users whose threads are recorded at the end. */
  readonly threaded: readonly string[];
}

export interface PopulationOptions {
  readonly seed: number;
  /** Users with a client over each transport, a chat, and clients of MCP and AG-UI. */
  readonly users: number;
  /** Aborted when no further operation may begin. */
  readonly signal: AbortSignal;
}

/** Creates the users of a round and their clients. */
export async function populate(
  { addresses, urls, stack, members: { keyServer } }: Deployment,
  recorder: Recorder,
  { seed, users: count, signal }: PopulationOptions,
): Promise<Population> {
  let number = 0;
  const gateways = stack.gateways.map(({ name, url }) => ({ name, url }));
  const serviceToken = serviceTokens(addresses);
  const deps = (): AdminDeps => {
    number += 1;
    return { recorder, urls, signal, seed: seed * 1_000 + number, gateways, serviceToken };
  };
  const minted = Array.from({ length: count }, (_, at) => mintedUser(addresses, `user-${at + 1}`));
  const session = await sessionUser(addresses);
  const keySet = keySetUser(addresses, 'key-set', keyServer);
  const [greedy, mobile, asker, rude, revoked, threads] = [
    ...['greedy', 'mobile', 'asker', 'rude', 'revoked', 'threads'].map((id) => mintedUser(addresses, id)),
  ] as [User, User, User, User, User, User];
  const limited = mintedUser(addresses, 'limited', 'limited');
  const chatty = mintedUser(addresses, 'chatty', 'chatty');
  const changing = mintedUser(addresses, 'changing', 'small');

  const clients = [
    ...minted.flatMap((user) => Object.keys(TRANSPORTS).map((transport) => new ClientMember(deps(), user, transport))),
    new ClientMember(deps(), session, 'websocket'),
    new ClientMember(deps(), keySet, 'websocket'),
  ];
  for (const client of clients) client.meet(clients);
  const members: Working[] = [
    ...clients,
    ...minted.flatMap((user) => [
      new ChatMember(deps(), user),
      new McpMember(deps(), user),
      new AgUiMember(deps(), user),
      new SlowMember(deps(), user),
    ]),
    new GreedyMember(deps(), greedy, CAP + 3),
    new GreedyMember(deps(), changing, (CAPS.large ?? 0) + 2),
    new PlanMember(deps(), changing),
    new MobileMember(deps(), mobile, 'phone'),
    new MobileMember(deps(), mobile, 'tablet'),
    new ApprovalMember(deps(), asker),
    new RudeMember(deps(), rude),
    new RevokedMember(deps(), revoked, addresses),
    new ThreadMember(deps(), threads),
    ...Object.keys(TRANSPORTS).map((transport) => new QuotaMember(deps(), limited, transport)),
    ...[1, 2].map((at) => new ChattyMember(deps(), chatty, at)),
  ];
  const users = [...minted, session, keySet, greedy, mobile, asker, rude, revoked, threads, limited, chatty, changing];
  const limits: Population['limits'] = [
    ...users.filter((user) => user !== changing).map(({ id }) => capsOf(id, 'every', { every: CAP })),
    capsOf(changing.id, 'small', CAPS),
    { t: 'quota', user: limited.id, calls: ALLOWANCE },
    { t: 'messages', user: chatty.id, perMinute: MESSAGES_PER_MINUTE },
  ];
  return { users, members, first: clients[0], limits, threaded: [threads.id] };
}

function capsOf(user: string, plan: string, caps: Readonly<Record<string, number>>) {
  return { t: 'caps' as const, user, plan, caps };
}
