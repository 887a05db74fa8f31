/** A single server, the master that the Sentinels report, or the shards of a Redis Cluster. */
export type RedisTopology = 'single' | 'sentinel' | 'cluster';

export interface RedisNode {
  readonly host: string;
  readonly port: number;
}

/** Parsed `REDIS_URL`. */
export interface RedisAddress {
  readonly topology: RedisTopology;
  readonly tls: boolean;
  /** Name of the ACL user. Without it, Redis uses `default`. */
  readonly username: string | undefined;
  readonly password: string | undefined;
  /** The single server, the Sentinels, or the cluster nodes for the first connection. */
  readonly nodes: readonly [RedisNode, ...RedisNode[]];
  /** Name of the master in the Sentinel configuration. */
  readonly masterName: string | undefined;
  readonly db: number;
}

const FORM = /^(rediss?)(?:\+(sentinel|cluster))?:\/\/(?:([^@/]*)@)?([^@/?#]+)(?:\/([^?#]*))?$/;
const HOST = /^(?:\[([0-9a-f:.]+)\]|([\w.-]+))(?::(\d{1,5}))?$/i;
const DEFAULT_PORT: Record<RedisTopology, number> = { single: 6379, sentinel: 26_379, cluster: 6379 };
/** Names that Redis Sentinel accepts (`sentinelIsValidMasterName`). */
const MASTER_NAME = /^[\w.-]+$/;

/**
 * Parses one of these forms:
 *
 *     redis://[user:password@]host[:port][/db]
 *     redis+sentinel://[user:password@]host[:port][,host[:port]…]/master[/db]
 *     redis+cluster://[user:password@]host[:port][,host[:port]…]
 *
 * `rediss` enables TLS. User and password are those of Redis itself, percent-encoded.
 * @returns the address, or a description of the problem that quotes nothing of the URL, which may contain a password
 */
export function parseRedisUrl(url: string): RedisAddress | string {
  const match = FORM.exec(url);
  if (!match) return 'must be redis://host:port, redis+sentinel://host:port,…/master or redis+cluster://host:port,…';
  const [, scheme, kind, userInfo, hosts = '', path = ''] = match;
  const topology = (kind ?? 'single') as RedisTopology;
  const credentials = parseCredentials(userInfo);
  if (!credentials) return 'has a user or a password that is not percent-encoded';
  const nodes = hosts.split(',').map((text) => parseNode(text, DEFAULT_PORT[topology]));
  const [first, ...others] = nodes.filter((node) => node !== undefined);
  if (!first || others.length + 1 < nodes.length) return 'has an invalid host: use host or host:port';
  if (topology === 'single' && others.length > 0)
    return 'names several hosts: use redis+sentinel:// or redis+cluster://';
  const location = parsePath(topology, path);
  if (typeof location === 'string') return location;
  return { topology, tls: scheme === 'rediss', ...credentials, nodes: [first, ...others], ...location };
}

function parseCredentials(userInfo = ''): Pick<RedisAddress, 'username' | 'password'> | undefined {
  const colon = userInfo.indexOf(':');
  const [username, password] = colon < 0 ? [userInfo, ''] : [userInfo.slice(0, colon), userInfo.slice(colon + 1)];
  try {
    return {
      username: decodeURIComponent(username) || undefined,
      password: decodeURIComponent(password) || undefined,
    };
  } catch {
    return undefined;
  }
}

function parseNode(text: string, defaultPort: number): RedisNode | undefined {
  const [, address, name, digits] = HOST.exec(text) ?? [];
  const host = address ?? name;
  const port = digits === undefined ? defaultPort : Number(digits);
  return host === undefined || port < 1 || port > 65_535 ? undefined : { host, port };
}

function parsePath(topology: RedisTopology, path: string): Pick<RedisAddress, 'masterName' | 'db'> | string {
  if (topology === 'cluster') {
    return path === '' ? { masterName: undefined, db: 0 } : 'names a database, which a Redis Cluster does not have';
  }
  const [first = '', ...rest] = path.split('/');
  const [masterName, dbText = '', ...more] = topology === 'sentinel' ? [first, ...rest] : [undefined, first, ...rest];
  if (masterName !== undefined && !MASTER_NAME.test(masterName)) return 'needs the name of the master after its hosts';
  if (more.length > 0 || !/^\d{0,4}$/.test(dbText)) return 'has a database that is not a number';
  return { masterName, db: Number(dbText) };
}

/** Formats the address for people, without user and password. */
export function describeRedisUrl(url: string): string {
  const address = parseRedisUrl(url);
  if (typeof address === 'string') return `an address that ${address}`;
  const { topology, tls, nodes, masterName } = address;
  const scheme = `${tls ? 'rediss' : 'redis'}${topology === 'single' ? '' : `+${topology}`}`;
  const hosts = nodes.map(({ host, port }) => `${host.includes(':') ? `[${host}]` : host}:${port}`);
  return `${scheme}://${hosts.join(',')}${masterName === undefined ? '' : `/${masterName}`}`;
}
