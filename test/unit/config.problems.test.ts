import { describe, expect, it } from '@jest/globals';
import { ConfigError, type ConfigProblem, loadConfig } from '../../src/config.ts';

type Environment = Record<string, string | undefined>;

/** Random but constant: a strong secret. */
const JWT_SECRET = 'q7Jm2xVd0sTzB4nKc9wLfR8yHpUa3eGi';
const SERVICE_SECRET = 'Zr5Xb1Wk7MtQ9vDs2LhNc6PjYf0AuEoG';
const SOUND: Environment = {
  ENVIRONMENT: 'test',
  JWT_SECRET_KEY: JWT_SECRET,
  SERVICE_SECRET,
  AUTH_SERVICE_URL: 'http://localhost:8081',
  REDIS_URL: 'redis://localhost:6379',
};

/** Returns the problems of a valid environment with these changes. */
function problemsOf(changes: Environment): readonly ConfigProblem[] {
  return problemsWith({ ...SOUND, ...changes });
}

function problemsWith(env: Environment): readonly ConfigProblem[] {
  try {
    loadConfig(env);
    return [];
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
}

const named = (problems: readonly ConfigProblem[]) => problems.map(({ code, name }) => `${code} ${name}`);

describe('a configuration', () => {
  it('B172 B199 B202 is taken with everything required and the documented defaults', () => {
    const config = loadConfig({ ...SOUND, ENVIRONMENT: undefined });
    expect(config).toMatchObject({
      ENVIRONMENT: 'production',
      AUTH_SERVICE_URL: 'http://localhost:8081',
      JWT_ISSUER: 'http://localhost:8081',
      JWT_AUDIENCE: 'tollgate',
      JWT_ACCEPTED_TYPES: ['at+jwt', 'JWT', 'none'],
      PORT: 8000,
      WORKER_PORT: 8090,
      AUTH_PORT: 8081,
      MAX_CONNECTIONS_PER_USER: 3,
      MESSAGE_RATE_PER_MINUTE: 30,
      MAX_MESSAGE_BYTES: 8_192,
      AUTH_DEADLINE_SECONDS: 10,
      AUTH_FAILURES_PER_MINUTE: 10,
      HEARTBEAT_INTERVAL_SECONDS: 45,
      CONNECTION_TIMEOUT_SECONDS: 300,
      TOKEN_REFRESH_LEAD_SECONDS: 15,
      TOKEN_DEGRADED_TIMEOUT_SECONDS: 180,
      CORS_ORIGINS: [],
      TRUSTED_PROXY_HOPS: 0,
      DRAIN_SECONDS: 30,
      EVENT_LOG_LENGTH: 1_000,
      EVENT_LOG_BYTES: 8_388_608,
      EVENT_LOG_HOURS: 24,
      LOG_LEVEL: 'info',
      DEV_AUTH_BYPASS: false,
    });
    expect(config.METRICS_PORT).toBeUndefined();
  });

  it('counts an empty variable as one that is not set', () => {
    expect(loadConfig({ ...SOUND, PORT: '', METRICS_PORT: '' })).toMatchObject({ PORT: 8000 });
    expect(named(problemsOf({ SERVICE_SECRET: '' }))).toEqual(['MISSING_SERVICE_SECRET SERVICE_SECRET']);
  });

  it('reads a list of origins and an issuer of its own', () => {
    const config = loadConfig({
      ...SOUND,
      CORS_ORIGINS: ' http://a.test , https://b.test:8443,',
      JWT_ISSUER: 'https://i',
    });
    expect(config.CORS_ORIGINS).toEqual(['http://a.test', 'https://b.test:8443']);
    expect(config.JWT_ISSUER).toBe('https://i');
  });

  it('reads nothing but what it is given', () => {
    expect(() => loadConfig({})).toThrow(ConfigError);
  });
});

describe('a mistake in the configuration', () => {
  it('B171 B173 B183 B187 is reported with all the others at once, by name', () => {
    const problems = problemsWith({ ENVIRONMENT: 'staging', PORT: 'many', CORS_ORIGINS: 'app' });
    expect(named(problems).sort()).toEqual([
      'INVALID_VALUE CORS_ORIGINS',
      'INVALID_VALUE PORT',
      'INVALID_VALUE REDIS_URL',
      'MISSING_AUTH_SERVICE_URL AUTH_SERVICE_URL',
      'MISSING_JWT_SECRET JWT_SECRET_KEY',
      'MISSING_SERVICE_SECRET SERVICE_SECRET',
    ]);
    const { message } = new ConfigError(problems);
    for (const { code, name } of problems) expect(message).toMatch(new RegExp(`${code} +${name}: `));
  });

  it.each([
    ['B166 B200', 'JWT_SECRET_KEY', 'MISSING_JWT_SECRET'],
    ['B164 B197', 'SERVICE_SECRET', 'MISSING_SERVICE_SECRET'],
    ['B168 B203', 'AUTH_SERVICE_URL', 'MISSING_AUTH_SERVICE_URL'],
    ['', 'REDIS_URL', 'INVALID_VALUE'],
  ])('%s is a missing %s: %s', (_rows, name, code) => {
    const [problem, ...others] = problemsOf({ [name]: undefined });
    expect(problem).toMatchObject({ code, name });
    expect(problem?.message).toContain(name);
    expect(others).toEqual([]);
  });

  it('is not a missing JWT_SECRET_KEY where there is a JWKS_URL', () => {
    expect(problemsOf({ JWT_SECRET_KEY: undefined, JWKS_URL: 'http://localhost:8081/jwks.json' })).toEqual([]);
  });

  it.each(['abc', 'password', '12345', 'test', 'secret', 'short', 'tooshort123', 'x'.repeat(31)])(
    'B167 B198 B201 is the secret %s, which is too short',
    (secret) => {
      for (const name of ['JWT_SECRET_KEY', 'JWT_SECRET_KEY_PREVIOUS', 'SERVICE_SECRET']) {
        const message = `must be at least 32 characters, got ${secret.length}`;
        expect(problemsOf({ [name]: secret })).toEqual([{ code: 'WEAK_SECRET', name, message }]);
      }
    },
  );

  it.each(['x'.repeat(64), 'changeme'.repeat(4), 'password'.repeat(5), 'your-secret-key-goes-here-please-do'])(
    'is the long secret %s, which everybody guesses',
    (secret) => {
      expect(named(problemsOf({ SERVICE_SECRET: secret }))).toEqual(['WEAK_SECRET SERVICE_SECRET']);
    },
  );

  it.each(['at+jwt,,JWT', 'application/at+jwt', 'none', ' JWT , x.y+z '])('is not the token types %j', (types) => {
    expect(problemsOf({ JWT_ACCEPTED_TYPES: types })).toEqual([]);
  });

  it.each([',', 'at jwt', 'at+jwt;v=1', 'a/b/c', '*', '/jwt', 'jwt/', 'x'.repeat(200)])(
    'is the token types %j, which no header can have',
    (types) => {
      expect(named(problemsOf({ JWT_ACCEPTED_TYPES: types }))).toEqual(['INVALID_VALUE JWT_ACCEPTED_TYPES']);
    },
  );

  it('never repeats the value of a secret', () => {
    for (const secret of ['hunter2', 'x'.repeat(64), 'changeme'.repeat(4)]) {
      const { message } = new ConfigError(problemsOf({ JWT_SECRET_KEY: secret, SERVICE_SECRET: secret }));
      expect(message).not.toContain(secret);
    }
  });

  it.each([
    'not-a-valid-url',
    'localhost:8081',
    'ftp://host/',
    '/auth',
    'http://',
    'http:localhost',
    'http://host:99999',
  ])('B169 B170 B184 B204 is the auth service at %s, which is no URL', (url) => {
    const [problem, ...others] = problemsOf({ AUTH_SERVICE_URL: url });
    expect(problem).toMatchObject({ code: 'INVALID_URL', name: 'AUTH_SERVICE_URL' });
    expect(problem?.message).toContain('Invalid URL');
    expect(others).toEqual([]);
  });

  it.each(['http://archive:5432/tollgate', 'archive', 'mysql://archive/tollgate', '//archive/tollgate'])(
    'is the archive at %s, which is no PostgreSQL',
    (url) => {
      const [problem, ...others] = problemsOf({ USAGE_ARCHIVE_URL: url });
      expect(problem).toMatchObject({ code: 'INVALID_URL', name: 'USAGE_ARCHIVE_URL' });
      // The URL may contain a password.
      expect(problem?.message).not.toContain(url);
      expect(others).toEqual([]);
      expect(problemsOf({ USAGE_ARCHIVE_URL: 'postgres://user:password@archive:5432/tollgate' })).toEqual([]);
    },
  );

  it.each(['http://auth.example.com', 'http://8.8.8.8:8081', 'http://10.example.com', 'http://127.0.0.1.example.com'])(
    'is the public host of %s over plain http, in production only',
    (url) => {
      const production = problemsOf({ ENVIRONMENT: 'production', AUTH_SERVICE_URL: url });
      expect(named(production)).toEqual(['INVALID_URL AUTH_SERVICE_URL']);
      expect(problemsOf({ ENVIRONMENT: 'staging', AUTH_SERVICE_URL: url })).toEqual([]);
    },
  );

  it.each([
    'https://auth.example.com',
    'http://localhost:8081',
    'http://auth:8081',
    'http://127.0.0.1:8081',
    'http://10.1.2.3:8081',
    'http://172.16.0.1',
    'http://192.168.1.1',
    'http://[::1]:8081',
    'http://[fd00::1]:8081',
    'http://auth.default.svc.cluster.local',
  ])('is not the auth service at %s in production', (url) => {
    expect(problemsOf({ ENVIRONMENT: 'production', AUTH_SERVICE_URL: url })).toEqual([]);
  });

  it.each([
    ['ENVIRONMENT', 'prod'],
    ['PORT', '-1'],
    ['PORT', '65536'],
    ['PORT', '80.5'],
    ['MAX_CONNECTIONS_PER_USER', '0'],
    ['MESSAGE_RATE_PER_MINUTE', 'NaN'],
    ['MAX_MESSAGE_BYTES', '65537'],
    ['AUTH_DEADLINE_SECONDS', '0'],
    ['HEARTBEAT_INTERVAL_SECONDS', 'soon'],
    ['EVENT_LOG_LENGTH', '9'],
    ['EVENT_LOG_BYTES', '262143'],
    ['TRUSTED_PROXY_HOPS', '-1'],
    ['DEV_AUTH_BYPASS', 'yes'],
    ['LOG_LEVEL', 'loud'],
    ['REDIS_KEY_PREFIX', 'a{b}'],
    ['REDIS_URL', 'http://localhost:6379'],
    ['REDIS_URL', 'localhost'],
    ['REDIS_URL', 'redis+sentinel://a,b'],
    ['REDIS_SENTINEL_PASSWORD', 'for a URL that names no Sentinels'],
    ['REDIS_TLS_CA_FILE', '/for/a/url/without/tls'],
    ['REDIS_TLS_SERVER_NAME', 'for.a.url.without.tls'],
    ['CORS_ORIGINS', 'app.example.com'],
    ['CORS_ORIGINS', 'http://app.example.com/'],
    ['CORS_ORIGINS', 'http://APP.example.com'],
  ])('is %s=%s: INVALID_VALUE', (name, value) => {
    expect(named(problemsOf({ [name]: value }))).toEqual([`INVALID_VALUE ${name}`]);
  });

  it('is a connection timeout that leaves no time to answer a heartbeat', () => {
    const env = { HEARTBEAT_INTERVAL_SECONDS: '60', CONNECTION_TIMEOUT_SECONDS: '60' };
    expect(named(problemsOf(env))).toEqual(['INVALID_VALUE CONNECTION_TIMEOUT_SECONDS']);
  });

  it('is waiting for replicas where each shard has its own', () => {
    const env = { REDIS_URL: 'redis+cluster://redis:6379', REDIS_WAIT_REPLICAS: '1' };
    expect(named(problemsOf(env))).toEqual(['INVALID_VALUE REDIS_WAIT_REPLICAS']);
  });

  it('is a model endpoint without the name of a model', () => {
    const env = { AGENT_MODEL_URL: 'http://127.0.0.1:11434/v1' };
    expect(named(problemsOf(env))).toEqual(['INVALID_VALUE AGENT_MODEL_NAME']);
    expect(problemsOf({ ...env, AGENT_MODEL_NAME: 'small' })).toEqual([]);
  });

  it.each([
    ['OTEL_EXPORTER_OTLP_ENDPOINT', 'collector:4318', 'INVALID_URL'],
    ['OTEL_EXPORTER_OTLP_TRACES_ENDPOINT', 'grpc://collector:4317', 'INVALID_URL'],
    ['OTEL_TRACES_SAMPLER', 'jaeger_remote', 'INVALID_VALUE'],
    ['OTEL_TRACES_SAMPLER_ARG', '5', 'INVALID_VALUE'],
    ['OTEL_RESOURCE_ATTRIBUTES', 'no pair', 'INVALID_VALUE'],
    ['OTEL_BSP_MAX_QUEUE_SIZE', '0', 'INVALID_VALUE'],
    ['OTEL_SDK_DISABLED', 'yes', 'INVALID_VALUE'],
    ['AUTH_PUBLIC_URL', '/auth', 'INVALID_URL'],
  ])('is %s=%s: %s', (name, value, code) => {
    expect(named(problemsOf({ [name]: value }))).toEqual([`${code} ${name}`]);
  });

  it('is no resource attribute in the form of the specification: pairs, percent-encoded', () => {
    const { OTEL_RESOURCE_ATTRIBUTES: attributes } = loadConfig({
      ...SOUND,
      OTEL_RESOURCE_ATTRIBUTES: 'k8s.pod.name=a%2Cb, team = billing,broken=%',
    });
    expect(attributes).toEqual({ 'k8s.pod.name': 'a,b', team: 'billing', broken: '%' });
  });

  it('is an origin of * in production only', () => {
    const production = problemsOf({ ENVIRONMENT: 'production', CORS_ORIGINS: '*' });
    expect(named(production)).toEqual(['INVALID_VALUE CORS_ORIGINS']);
    expect(problemsOf({ CORS_ORIGINS: '*' })).toEqual([]);
  });

  it('B49 is DEV_AUTH_BYPASS in staging and production, whatever else is set', () => {
    for (const ENVIRONMENT of ['staging', 'production', undefined]) {
      const problems = problemsOf({ ENVIRONMENT, DEV_AUTH_BYPASS: 'true' });
      expect(named(problems)).toEqual(['FORBIDDEN_IN_PRODUCTION DEV_AUTH_BYPASS']);
      expect(problemsOf({ ENVIRONMENT, DEV_AUTH_BYPASS: 'false' })).toEqual([]);
    }
    for (const ENVIRONMENT of ['development', 'test']) {
      expect(loadConfig({ ...SOUND, ENVIRONMENT, DEV_AUTH_BYPASS: 'true' }).DEV_AUTH_BYPASS).toBe(true);
    }
  });
});
