import { type Dialect, envelopeDialect, flatDialect, jsonRpcDialect } from '../protocol/dialects.ts';
import { uiChatDialect } from '../protocol/ui-chat-dialect.ts';

/** A path at which clients can open a raw WebSocket. */
export interface Endpoint {
  /** As in the documentation and in the labels of metrics. */
  readonly path: string;
  readonly dialect: Dialect;
  /** Whether the handshake must carry a token; otherwise a message can carry it later. */
  readonly identityRequired: boolean;
  /** Whether the path ends with a user id. */
  readonly userInPath: boolean;
  /** Sub-protocols that the server can select, the preferred one first. */
  readonly protocols: readonly string[];
}

const MCP: Endpoint = {
  path: '/ws/mcp',
  dialect: jsonRpcDialect,
  identityRequired: true,
  userInPath: false,
  protocols: ['mcp', 'jwt-auth'],
};

/** For the `WebSocketChatTransport` of the AI SDK, which ends at the first frame of another protocol. */
const UI_CHAT: Endpoint = {
  path: '/v1/chat/ws',
  dialect: uiChatDialect,
  identityRequired: true,
  userInPath: false,
  protocols: ['jwt-auth'],
};

/** In order of precedence: `/ws/{user_id}` matches what no other row does. */
export const ENDPOINTS: readonly Endpoint[] = [
  { path: '/ws', dialect: flatDialect, identityRequired: false, userInPath: false, protocols: ['jwt-auth'] },
  { path: '/ws/secure', dialect: envelopeDialect, identityRequired: true, userInPath: false, protocols: ['jwt-auth'] },
  MCP,
  UI_CHAT,
  {
    path: '/ws/v1/{user_id}',
    dialect: envelopeDialect,
    identityRequired: true,
    userInPath: true,
    protocols: ['jwt-auth'],
  },
  {
    path: '/ws/{user_id}',
    dialect: envelopeDialect,
    identityRequired: true,
    userInPath: true,
    protocols: ['jwt-auth'],
  },
];

/** The endpoints that `GET /ws/config` lists. */
export const PUBLIC_PATHS: readonly string[] = ['/ws', '/ws/{user_id}', '/ws/v1/{user_id}', '/ws/secure'];

/** Segments under `/ws/` that are not user ids. */
const RESERVED = new Set(['config', 'health', 'v1', 'secure', 'mcp']);

export interface MatchedEndpoint {
  readonly endpoint: Endpoint;
  /** The user id in the path. */
  readonly userId: string | undefined;
}

/** The endpoint of a path without query; undefined if there is none. */
export function matchEndpoint(path: string): MatchedEndpoint | undefined {
  for (const endpoint of ENDPOINTS) {
    if (!endpoint.userInPath) {
      if (endpoint.path === path) return { endpoint, userId: undefined };
      continue;
    }
    const prefix = endpoint.path.slice(0, endpoint.path.indexOf('{'));
    if (!path.startsWith(prefix)) continue;
    const userId = decoded(path.slice(prefix.length));
    if (userId !== undefined && !RESERVED.has(userId)) return { endpoint, userId };
  }
  return undefined;
}

function decoded(segment: string): string | undefined {
  if (segment === '' || segment.includes('/')) return undefined;
  try {
    return decodeURIComponent(segment);
  } catch {
    return undefined;
  }
}
