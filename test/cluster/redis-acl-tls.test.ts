import { readFileSync } from 'node:fs';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { Cluster } from 'ioredis';
import { freePorts, LOOPBACK } from '../../scripts/lib/ports.ts';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { connectRedis, disconnectRedis } from '../../src/redis/client.ts';
import { Keys } from '../../src/redis/keys.ts';
import { pingShards } from '../../src/redis/subscriptions.ts';
import { type Certificates, makeCertificates } from '../support/certificates.ts';
import { silentLogger } from '../support/core.ts';
import { runMainPath } from '../support/main-path.ts';
import { closeAfter } from '../support/open-resources.ts';
import { describeWith, OPENSSL } from '../support/programs.ts';
import { RedisClusterProcesses } from '../support/redis-cluster.ts';
import { RedisProcess, type Settings } from '../support/redis-process.ts';
import { SentinelProcesses } from '../support/redis-sentinels.ts';
import { StackProcesses } from '../support/stack-processes.ts';
import { until } from '../support/until.ts';

/** Contains characters that a URL must escape. */
const PASSWORD = 'p@ss:w/rd?#%';
const OPERATOR_PASSWORD = 'of-the-test-alone';
const NAME = 'redis.example.test';

/** The rules of docs/operations.md for operators, without name and password. */
function documentedRules(): string[] {
  const docs = readFileSync(`${PROJECT_ROOT}docs/operations.md`, 'utf8');
  const line = /^ {4}ACL SETUSER tollgate on '>…' (.+(?:\n {6}.+)*)$/m.exec(docs)?.[1];
  if (!line) throw new Error('docs/operations.md has no ACL SETUSER tollgate');
  return line.split(/\s+/).map((rule) => rule.replaceAll("'", ''));
}

/** Two users: that of Tollgate, and that of the test. The default user has no rights. */
function users(): Settings {
  return [
    ['user', 'default', 'off'],
    ['user', 'operator', 'on', `>${OPERATOR_PASSWORD}`, '~*', '&*', '+@all'],
    // As the file requires it: quoted as a whole.
    ['user', 'tollgate', 'on', `">${PASSWORD}"`, ...documentedRules()],
  ];
}

function tlsSettings({ ca, cert, key }: Certificates, port: number): Settings {
  return [
    ['port', '0'],
    ['tls-port', String(port)],
    ['tls-ca-cert-file', ca],
    ['tls-cert-file', cert],
    ['tls-key-file', key],
    ['tls-auth-clients', 'yes'],
    ['maxmemory-policy', 'noeviction'],
  ];
}

function urlFor(scheme: string, hosts: string): string {
  return `${scheme}://tollgate:${encodeURIComponent(PASSWORD)}@${hosts}`;
}

describeWith(
  OPENSSL,
  'a Redis over TLS that knows its clients, and a user with the permissions of the documents',
  () => {
    let certificates: Certificates;
    let server: RedisProcess;
    let env: Record<string, string>;

    beforeAll(async () => {
      certificates = await makeCertificates(`DNS:${NAME}`);
      const [port = 0] = await freePorts(1);
      const tls = {
        ca: readFileSync(certificates.ca),
        cert: readFileSync(certificates.cert),
        key: readFileSync(certificates.key),
        servername: NAME,
      };
      const ask = { username: 'operator', password: OPERATOR_PASSWORD, tls };
      server = await RedisProcess.start({ port, ask, settings: [...tlsSettings(certificates, port), ...users()] });
      closeAfter('file', () => server.close());
      env = {
        REDIS_URL: urlFor('rediss', `${LOOPBACK}:${port}`),
        REDIS_TLS_CA_FILE: certificates.ca,
        REDIS_TLS_CERT_FILE: certificates.cert,
        REDIS_TLS_KEY_FILE: certificates.key,
        REDIS_TLS_SERVER_NAME: NAME,
      };
    });

    it('B171 suffices for all operations, and no process prints the password', async () => {
      // The processes get their variables; the prefix is that of the documented rules.
      const options = { ...env, REDIS_KEY_PREFIX: 'tollgate', ACCESS_TOKEN_SECONDS: '5', LOG_LEVEL: 'debug' };
      const stack = await StackProcesses.start({ gateways: 2, env: options, redisUrl: env.REDIS_URL ?? '' });
      closeAfter('test', () => stack.close());
      await runMainPath(stack.addresses);
      const denied = (await server.ask((redis) => redis.acl('LOG'))) as unknown[];
      expect(denied).toEqual([]);
      for (const { output } of stack.all) expect(output).not.toContain(PASSWORD);
    }, 60_000);

    it.each([
      ['without the authority', { REDIS_TLS_CA_FILE: undefined }, /certificate|self-signed|issuer/i],
      ['under another name', { REDIS_TLS_SERVER_NAME: undefined }, /altnames|Hostname|IP/i],
      ['without a certificate of its own', { REDIS_TLS_CERT_FILE: undefined, REDIS_TLS_KEY_FILE: undefined }, /./],
      ['with a file that is not there', { REDIS_TLS_CA_FILE: '/no/such/file' }, /REDIS_TLS_CA_FILE: ENOENT/],
      ['with a wrong password', { REDIS_URL: 'rediss://tollgate:wrong-secret@HOST' }, /WRONGPASS/],
    ])('is not connected to %s, and says why', async (_what, changes, expected) => {
      const variables = { ...env, ...changes, REDIS_URL: env.REDIS_URL ?? '' };
      if ('REDIS_URL' in changes) {
        variables.REDIS_URL = changes.REDIS_URL.replace('HOST', `${LOOPBACK}:${server.port}`);
      }
      const error = await connectRedis(variables, 'commands', silentLogger).catch((thrown: Error) => thrown);
      expect(error).toBeInstanceOf(Error);
      expect((error as Error).message).toMatch(expected);
      expect((error as Error).message).not.toMatch(/wrong-secret|p@ss/);
    });
  },
);

describeWith(OPENSSL, 'a Redis Cluster over TLS', () => {
  it('is reached on every shard by a user of its own', async () => {
    const certificates = await makeCertificates(`IP:${LOOPBACK}`);
    const tls = {
      ca: readFileSync(certificates.ca),
      cert: readFileSync(certificates.cert),
      key: readFileSync(certificates.key),
    };
    const ask = { username: 'operator', password: OPERATOR_PASSWORD, tls };
    const cluster = await RedisClusterProcesses.start({
      ask,
      settings: (port) => [...tlsSettings(certificates, port), ['tls-cluster', 'yes'], ...users()],
    });
    closeAfter('test', () => cluster.close());
    const hosts = cluster.masters.map(({ port }) => `${LOOPBACK}:${port}`).join(',');
    const variables = {
      REDIS_URL: urlFor('rediss+cluster', hosts),
      REDIS_TLS_CA_FILE: certificates.ca,
      REDIS_TLS_CERT_FILE: certificates.cert,
      REDIS_TLS_KEY_FILE: certificates.key,
    };
    const redis = await connectRedis(variables, 'commands', silentLogger);
    closeAfter('test', () => disconnectRedis(redis));
    const subscriber = await connectRedis(variables, 'subscriber', silentLogger);
    closeAfter('test', () => disconnectRedis(subscriber));
    const received = new Set<string>();
    subscriber.on('smessage', (channel: string) => received.add(channel));
    const { runControls } = new Keys('tollgate');
    await Promise.all(runControls.map((channel) => subscriber.ssubscribe(channel)));
    await Promise.all(runControls.map((channel) => redis.spublish(channel, 'x')));
    await until(() => received.size === runControls.length);
    if (subscriber instanceof Cluster) await pingShards(subscriber);
    const keys = Array.from({ length: 30 }, (_, at) => `tollgate:${at}`);
    await Promise.all(keys.map((key) => redis.set(key, key)));
    expect(await Promise.all(keys.map((key) => redis.get(key)))).toEqual(keys);
    const sizes = await Promise.all(cluster.masters.map((master) => master.ask((node) => node.dbsize())));
    expect(Math.min(...sizes)).toBeGreaterThan(0);
  }, 60_000);
});

describeWith(OPENSSL, 'Sentinels over TLS', () => {
  it('name a master that is reached over TLS, by a name that all certificates carry', async () => {
    const { ca, cert, key } = await makeCertificates(`DNS:${NAME}`);
    const tls = { ca: readFileSync(ca), cert: readFileSync(cert), key: readFileSync(key), servername: NAME };
    const settings = (port: number): Settings => [
      ['port', '0'],
      ['tls-port', String(port)],
      ['tls-ca-cert-file', ca],
      ['tls-cert-file', cert],
      ['tls-key-file', key],
      ['tls-replication', 'yes'],
    ];
    const options = { replicas: 1, password: PASSWORD, sentinelPassword: OPERATOR_PASSWORD };
    const sentinels = await SentinelProcesses.start({ ...options, tls: { settings, ask: { tls } } });
    closeAfter('test', () => sentinels.close());
    const variables = {
      REDIS_URL: sentinels.url.replace('redis+', 'rediss+'),
      REDIS_SENTINEL_PASSWORD: OPERATOR_PASSWORD,
      REDIS_TLS_CA_FILE: ca,
      REDIS_TLS_CERT_FILE: cert,
      REDIS_TLS_KEY_FILE: key,
      REDIS_TLS_SERVER_NAME: NAME,
    };
    const redis = await connectRedis(variables, 'commands', silentLogger);
    closeAfter('test', () => disconnectRedis(redis));
    expect(await redis.set('a', 'b')).toBe('OK');
  }, 60_000);
});

describe('the documented rules', () => {
  it('name neither all commands nor all keys', () => {
    const rules = documentedRules();
    expect(rules).not.toContain('+@all');
    expect(rules).not.toContain('~*');
    expect(rules).not.toContain('&*');
  });
});
