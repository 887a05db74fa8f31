/** One Redis, the master that Sentinels name, or the shards of a Redis Cluster. */
export type RedisTopology = 'single' | 'sentinel' | 'cluster';

export interface RedisNode {
  readonly host: string;
  readonly port: number;
}

/** What a `REDIS_URL` says. */
export interface RedisAddress {
  readonly topology: RedisTopology;
  readonly tls: boolean;
  /** Of the ACL user; Redis takes `default` where there is none. */
  readonly username: string | undefined;
  readonly password: string | undefined;
  /** The one server, the Sentinels, or some nodes of the cluster: those that are asked first. */
  readonly nodes: readonly [RedisNode, ...RedisNode[]];
  /** What the Sentinels call the master. */
  readonly masterName: string | undefined;
  readonly db: number;
}

const FORM = /^(rediss?)(?:\+(sentinel|cluster))?:\/\/(?:([^@/]*)@)?([^@/?#]+)(?:\/([^?#]*))?$/;
const HOST = /^(?:\[([0-9a-f:.]+)\]|([\w.-]+))(?::(\d{1,5}))?$/i;
const DEFAULT_PORT: Record<RedisTopology, number> = { single: 6379, sentinel: 26_379, cluster: 6379 };
/** What Redis Sentinel itself allows: `sentinelIsValidMasterName` accepts no other. */
const MASTER_NAME = /^[\w.-]+$/;

/**
 * Reads one of
 *
 *     redis://[user:password@]host[:port][/db]
 *     redis+sentinel://[user:password@]host[:port][,host[:port]…]/master[/db]
 *     redis+cluster://[user:password@]host[:port][,host[:port]…]
 *
 * with `rediss` for TLS. User and password are those of Redis itself, percent-encoded.
 * @returns the address, or a sentence that says what is wrong and repeats nothing of the URL, which may hold a password
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
  if (!first || others.length + 1 < nodes.length) return 'has a host that is not host or host:port';
  if (topology === 'single' && others.length > 0)
    return 'names several hosts: redis+sentinel:// or redis+cluster:// may';
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
  if (masterName !== undefined && !MASTER_NAME.test(masterName)) return 'needs the name of the master behind its hosts';
  if (more.length > 0 || !/^\d{0,4}$/.test(dbText)) return 'has a database that is no number';
  return { masterName, db: Number(dbText) };
}

/** The address without user and password, for people to read. */
export function describeRedisUrl(url: string): string {
  const address = parseRedisUrl(url);
  if (typeof address === 'string') return `an address that ${address}`;
  const { topology, tls, nodes, masterName } = address;
  const scheme = `${tls ? 'rediss' : 'redis'}${topology === 'single' ? '' : `+${topology}`}`;
  const hosts = nodes.map(({ host, port }) => `${host.includes(':') ? `[${host}]` : host}:${port}`);
  return `${scheme}://${hosts.join(',')}${masterName === undefined ? '' : `/${masterName}`}`;
}
