import { type Dialect, envelopeDialect, flatDialect, jsonRpcDialect } from '../protocol/dialects.ts';

/** A path where a raw WebSocket can be opened. */
export interface Endpoint {
  /** As documented and as it labels metrics. */
  readonly path: string;
  readonly dialect: Dialect;
  /** Whether a token must come with the handshake, or may come later. */
  readonly identityRequired: boolean;
  /** The user that the path names, if the endpoint is a user's own. */
  readonly userInPath: boolean;
  /** Sub-protocols that may be answered, the preferred one first. */
  readonly protocols: readonly string[];
}

const MCP: Endpoint = {
  path: '/ws/mcp',
  dialect: jsonRpcDialect,
  identityRequired: true,
  userInPath: false,
  protocols: ['mcp', 'jwt-auth'],
};

/** Exact paths first: `/ws/{user_id}` takes what no other row does. */
export const ENDPOINTS: readonly Endpoint[] = [
  { path: '/ws', dialect: flatDialect, identityRequired: false, userInPath: false, protocols: ['jwt-auth'] },
  { path: '/ws/secure', dialect: envelopeDialect, identityRequired: true, userInPath: false, protocols: ['jwt-auth'] },
  MCP,
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

/** What `GET /ws/config` lists. */
export const PUBLIC_PATHS: readonly string[] = ['/ws', '/ws/{user_id}', '/ws/v1/{user_id}', '/ws/secure'];

/** Paths under `/ws/` that are plain HTTP and never a user's. */
const RESERVED = new Set(['config', 'health', 'v1', 'secure', 'mcp']);

export interface MatchedEndpoint {
  readonly endpoint: Endpoint;
  /** The user named in the path. */
  readonly userId: string | undefined;
}

/** The endpoint of a path without its query; undefined for a path that is none. */
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
