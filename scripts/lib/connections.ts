/**
 * Every network connection that the processes of a deployment can make, and the Kubernetes component that allows it. The
 * tests compare this table with the code that opens connections, with the network policies of every overlay, and with
 * the table in k8s/README.md.
 */

export type Endpoint = keyof typeof ENDPOINTS;

/** Pods of this project by the labels of their manifests, and peers outside of it. */
export const ENDPOINTS = {
  gateway: { pods: { 'app.kubernetes.io/name': 'tollgate', 'app.kubernetes.io/component': 'gateway' } },
  worker: { pods: { 'app.kubernetes.io/name': 'tollgate', 'app.kubernetes.io/component': 'worker' } },
  'auth service': { pods: { 'app.kubernetes.io/name': 'tollgate', 'app.kubernetes.io/component': 'auth-service' } },
  Redis: { pods: { 'app.kubernetes.io/name': 'redis' } },
  Sentinel: { pods: { 'app.kubernetes.io/name': 'redis-sentinel' } },
  PostgreSQL: { pods: { 'app.kubernetes.io/name': 'postgres' } },
  'cluster DNS': { namespace: 'kube-system' },
  'DNS cache of the node': { address: '169.254.20.10/32' },
  'HAProxy ingress': { namespace: 'haproxy-controller' },
  'Traefik ingress': { namespace: 'traefik' },
  'Traefik of k3s': { namespace: 'kube-system' },
  'ingress-nginx': { namespace: 'ingress-nginx' },
  'Gateway API proxies': { namespace: 'gateway-system' },
  Prometheus: { namespace: 'monitoring' },
  'OpenTelemetry collector': { namespace: 'monitoring' },
  'model server': { namespace: 'models' },
  // Every address but those of cloud metadata, which provide credentials.
  'any IPv4 address': { address: '0.0.0.0/0', except: ['169.254.169.254/32'] },
  'any IPv6 address': { address: '::/0', except: ['fd00:ec2::254/128'] },
} as const satisfies Readonly<Record<string, Peer>>;

/** Pods of the same namespace, all pods of a namespace, or a block of addresses. */
export type Peer =
  | { readonly pods: Readonly<Record<string, string>> }
  | { readonly namespace: string }
  | { readonly address: string; readonly except?: readonly string[] };

export interface Connection {
  readonly from: readonly Endpoint[];
  readonly to: readonly Endpoint[];
  /** TCP, unless `udp`. */
  readonly ports: readonly number[];
  readonly udp?: true;
  readonly purpose: string;
  /** Folder below k8s/components, or `base`. */
  readonly component: string;
  /** Variables that cause the connection or set its address. */
  readonly variables: readonly string[];
  /** Files that open or accept it. */
  readonly code: readonly string[];
}

const TOLLGATE = ['gateway', 'worker', 'auth service'] as const;
const EVERY_POD = [...TOLLGATE, 'Redis', 'Sentinel', 'PostgreSQL'] as const;
const OUTSIDE = ['any IPv4 address', 'any IPv6 address'] as const;
const DNS = ['cluster DNS', 'DNS cache of the node'] as const;

const SERVER = { variables: ['PORT'], code: ['src/compose/gateway.ts'] };
const REDIS = { variables: ['REDIS_URL'], code: ['src/redis/client.ts', 'src/redis/connectors.ts'] };
const SENTINEL = { variables: ['REDIS_URL'], code: ['src/redis/sentinels.ts'] };
const AUTH = { variables: ['AUTH_SERVICE_URL'], code: ['src/auth/client/http.ts', 'src/http/readiness.ts'] };
const ARCHIVE = { variables: ['USAGE_ARCHIVE_URL'], code: ['src/usage/archive/database.ts'] };
const MODEL = { variables: ['AGENT_MODEL_URL'], code: ['src/agents/model/endpoint.ts', 'src/doctor/model-checks.ts'] };
/** Their addresses are in agents.json. */
const AGENTS = ['src/agents/remote/agui-agent.ts', 'src/agents/remote/client.ts'];
const NO_CODE = { variables: [], code: [] };

const ingress = (from: Endpoint, component: string): Connection => {
  return { from: [from], to: ['gateway'], ports: [8000], purpose: 'clients and billing', component, ...SERVER };
};

export const CONNECTIONS: readonly Connection[] = [
  { from: EVERY_POD, to: DNS, ports: [53], udp: true, purpose: 'host names', component: 'base', ...NO_CODE },
  { from: EVERY_POD, to: DNS, ports: [53], purpose: 'long DNS answers', component: 'base', ...NO_CODE },
  ingress('HAProxy ingress', 'ingress-haproxy'),
  ingress('Traefik ingress', 'ingress-traefik'),
  ingress('Traefik of k3s', 'ingress-traefik'),
  ingress('ingress-nginx', 'ingress-nginx'),
  ingress('Gateway API proxies', 'gateway-api'),
  { from: TOLLGATE, to: ['Redis'], ports: [6379], purpose: 'all state', component: 'redis-dev', ...REDIS },
  { from: TOLLGATE, to: ['Redis'], ports: [6379], purpose: 'all state', component: 'redis-sentinel', ...REDIS },
  {
    from: TOLLGATE,
    to: ['Sentinel'],
    ports: [26_379],
    purpose: 'the master',
    component: 'redis-sentinel',
    ...SENTINEL,
  },
  { from: ['Redis'], to: ['Redis'], ports: [6379], purpose: 'replication', component: 'redis-sentinel', ...NO_CODE },
  {
    from: ['Redis'],
    to: ['Sentinel'],
    ports: [26_379],
    purpose: 'the master, failover before a stop',
    component: 'redis-sentinel',
    ...NO_CODE,
  },
  { from: ['Sentinel'], to: ['Redis'], ports: [6379], purpose: 'monitoring', component: 'redis-sentinel', ...NO_CODE },
  { from: ['Sentinel'], to: ['Sentinel'], ports: [26_379], purpose: 'votes', component: 'redis-sentinel', ...NO_CODE },
  {
    from: TOLLGATE,
    to: OUTSIDE,
    // The default port, the TLS port of managed services, Sentinels. Nodes of a Redis Cluster have the first two.
    ports: [6379, 6380, 26_379],
    purpose: 'Redis, Sentinels, Redis Cluster',
    component: 'external-services',
    ...REDIS,
  },
  {
    from: ['gateway', 'worker'],
    to: OUTSIDE,
    ports: [443],
    purpose: 'auth service, identity providers and their key sets, a model, agents on other servers',
    component: 'external-services',
    variables: [...AUTH.variables, 'JWKS_URL', 'IDENTITY_PROVIDERS', ...MODEL.variables],
    code: [...AUTH.code, 'src/auth/providers/fetch-json.ts', ...MODEL.code, ...AGENTS],
  },
  {
    from: ['gateway', 'worker'],
    to: OUTSIDE,
    ports: [5432],
    purpose: 'archive of the ledger',
    component: 'external-services',
    ...ARCHIVE,
  },
  {
    from: ['gateway', 'worker'],
    to: ['auth service'],
    ports: [8081],
    purpose: 'tokens',
    component: 'auth-service',
    variables: [...AUTH.variables, 'AUTH_PORT'],
    code: [...AUTH.code, 'auth-service/server.ts'],
  },
  {
    from: ['gateway', 'worker'],
    to: ['PostgreSQL'],
    ports: [5432],
    purpose: 'archive of the ledger',
    component: 'postgres-archive',
    ...ARCHIVE,
  },
  {
    from: ['gateway', 'worker'],
    to: OUTSIDE,
    ports: [443],
    purpose: 'upstream MCP servers',
    component: 'tool-servers',
    variables: ['TOOL_SERVERS'],
    code: ['src/upstreams/bounded-http.ts', 'src/upstreams/connection.ts'],
  },
  {
    from: ['worker'],
    to: OUTSIDE,
    ports: [443],
    purpose: 'a model, agents on other servers',
    component: 'model',
    variables: MODEL.variables,
    code: [...MODEL.code, ...AGENTS],
  },
  {
    from: ['worker'],
    to: ['model server'],
    // Ollama, vLLM.
    ports: [11_434, 8000],
    purpose: 'a model in the cluster',
    component: 'model',
    ...MODEL,
  },
  {
    from: ['gateway', 'worker'],
    to: ['OpenTelemetry collector'],
    ports: [4318],
    purpose: 'traces',
    component: 'tracing',
    variables: ['OTEL_EXPORTER_OTLP_ENDPOINT', 'OTEL_EXPORTER_OTLP_TRACES_ENDPOINT'],
    code: ['src/telemetry/telemetry.ts'],
  },
  {
    from: ['Prometheus'],
    to: ['gateway'],
    ports: [9464],
    purpose: 'metrics',
    component: 'monitoring',
    variables: ['METRICS_PORT'],
    code: ['src/http/operations-routes.ts'],
  },
  {
    from: ['Prometheus'],
    to: ['worker'],
    ports: [8090],
    purpose: 'metrics',
    component: 'monitoring',
    variables: ['WORKER_PORT'],
    code: ['workers/operations.ts'],
  },
];

/** Variables that have the form of an address and cause no connection: they only occur in documents for clients. */
export const PUBLISHED_ADDRESSES = ['PUBLIC_URL', 'AUTH_PUBLIC_URL', 'CONSOLE_PROMETHEUS_URL', 'CONSOLE_TRACES_URL'];

/** Files that open a connection within their own pod only. */
export const LOCAL_CODE = ['src/healthcheck.ts', 'src/doctor/port-checks.ts'];

/** Returns the rows of the table in k8s/README.md. */
export function connectionTable(): string {
  const rows = CONNECTIONS.map(({ from, to, ports, udp, purpose, component, variables }) => {
    const pods = from === EVERY_POD ? 'every pod' : from.join(', ');
    const settings = variables.map((name) => `\`${name}\``).join(', ') || '–';
    const port = `${ports.join(', ')}${udp ? ' (UDP)' : ''}`;
    return `| ${pods} | ${to.join(', ')} | ${port} | ${purpose} | \`${component}\` | ${settings} |`;
  });
  return ['| from | to | port | purpose | opened by | set by |', '| --- | --- | --- | --- | --- | --- |', ...rows].join(
    '\n',
  );
}
