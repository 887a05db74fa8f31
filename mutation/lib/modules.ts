import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';

/** A part of the core, its files, and the tests that run with its mutants: those that need Redis at most. */
export interface CoreModule {
  readonly name: string;
  readonly files: readonly string[];
  readonly tests: readonly string[];
}

const lua = (...names: string[]) => names.map((name) => `src/redis/lua/${name}.lua`);
const integration = (...names: string[]) => names.map((name) => `test/integration/${name}.test.ts`);
const unit = (...names: string[]) => names.map((name) => `test/unit/${name}.test.ts`);

/** In the order of the run. */
export const CORE_MODULES: readonly CoreModule[] = [
  {
    name: 'admission (Lua)',
    files: lua(
      'admitConnection-9',
      'include/caps',
      'enforceCap-4',
      'renewLeases-n',
      'releaseConnections-6',
      'closeConnections-3',
    ),
    tests: integration('registry.leases', 'registry.caps', 'revocation.admission', 'revocation.cap'),
  },
  {
    name: 'limits (Lua)',
    files: lua('include/quotas', 'reserveCall-2', 'readQuota-3', 'beginCall-8', 'endCall-9', 'countAttempt-1'),
    tests: integration(
      'tool-calls.stored',
      'quotas.exact',
      'quotas.property',
      'tool-calls.full-store',
      'input-requests.calls',
      'auth-service.login',
    ),
  },
  {
    name: 'event log (Lua)',
    files: lua('appendEvents-n', 'include/events', 'include/streams', 'readLog-2', 'renewEpoch-1'),
    tests: integration(
      'event-log.stored',
      'event-log.appends',
      'event-log.bytes',
      'runs.takeover',
      'quotas.exact',
      'resume.property',
    ),
  },
  {
    name: 'run fencing (Lua)',
    files: lua(
      'claimRun-1',
      'startRun-10',
      'suspendRun-4',
      'journalRun-1',
      'restoreRun-6',
      'cancelRun-4',
      'answerInput-5',
      'include/waiting',
    ),
    tests: integration(
      'runs.accepted',
      'runs.claims',
      'runs.takeover',
      'runs.lost',
      'run-limits.exact',
      'run-limits.release',
      'run-inputs',
    ),
  },
  {
    name: 'ledger (Lua)',
    files: lua(
      'ingestUsage-6',
      'closeWindow-2',
      'recordCorrection-4',
      'trimLedger-4',
      'confirmCursor-1',
      'duePartitions-64',
    ),
    tests: integration(
      'ledger.stored',
      'ledger.chain',
      'ledger.ingestion',
      'ledger.fencing',
      'ledger.windows',
      'ledger.corrections',
      'ledger.retention',
      'ledger.model-steps',
      'ledger.tampering',
      'ledger.property',
    ),
  },
  {
    name: 'authentication (TypeScript)',
    files: ['access-token-rules', 'claims', 'tokens', 'credentials', 'introspection', 'run-tokens', 'user-id'].map(
      (name) => `src/auth/${name}.ts`,
    ),
    tests: unit(
      'auth.tokens',
      'auth.claims',
      'auth.credentials',
      'auth.introspection',
      'auth.jwks',
      'auth.presets',
      'auth.run-tokens',
    ),
  },
  {
    name: 'limits (TypeScript)',
    files: ['auth-failure-limiter', 'local-limiter', 'message-batches', 'pending-connections', 'quotas'].map(
      (name) => `src/limits/${name}.ts`,
    ),
    tests: [
      ...unit('limits.auth-failures', 'limits.message-batches', 'limits.quotas', 'codecs.property'),
      ...integration('limits.outage', 'quotas.exact', 'quotas.property'),
    ],
  },
  {
    name: 'event log (TypeScript)',
    files: ['cursor', 'event-log', 'user-log-writer'].map((name) => `src/events/${name}.ts`),
    tests: [
      ...unit('events.cursor'),
      ...integration('event-log.appends', 'event-log.batches', 'event-log.bytes', 'resume.property', 'runs.lost'),
    ],
  },
  {
    name: 'run fencing (TypeScript)',
    files: [
      'run-writer',
      'run-append',
      'run-log',
      'step-log',
      'runs',
      'stored-run',
      'run-executor',
      'open-calls',
      'accepted-runs',
      'recent-runs',
      'stream-run-queue',
    ].map((name) => `src/runs/${name}.ts`),
    tests: [
      ...unit('recent-runs.confirmed', 'runs.writer', 'runs.stored'),
      ...integration(
        'runs.takeover',
        'runs.lost',
        'event-log.batches',
        'run-queue',
        'run-inputs',
        'run-limits.release',
        'event-log.appends',
      ),
    ],
  },
  {
    name: 'ledger (TypeScript)',
    files: ['ledger/ledger-writer', 'ledger/windows', 'ledger/verifier', 'ledger/feed-cursor', 'records', 'hours'].map(
      (name) => `src/usage/${name}.ts`,
    ),
    tests: [
      ...unit('usage.renderers', 'usage.tail'),
      ...integration(
        'ledger.chain',
        'ledger.fencing',
        'ledger.windows',
        'ledger.corrections',
        'ledger.tampering',
        'ledger.ingestion',
        'ledger.retention',
      ),
    ],
  },
  {
    name: 'codecs (TypeScript)',
    files: [
      'lib/jws',
      'protocol/dialects',
      'protocol/json-bounds',
      'protocol/parse-fields',
      'protocol/ui-chat-dialect',
      'usage/ledger/feed-cursor',
      'mcp/request-states',
      'runs/input-answer',
      'transports/client-address',
      'transports/handshake-request',
      'transports/origins',
    ].map((name) => `src/${name}.ts`),
    tests: unit(
      'lib.jws',
      'protocol.dialects',
      'protocol.parse-fields',
      'protocol.messages',
      'codecs.property',
      'usage.renderers',
      'mcp.request-states',
      'runs.input-answer',
      'transports.client-address',
      'transports.endpoints',
      'transports.origins',
    ),
  },
];

/** Returns the scripts that contain a Lua file: itself, or those that include it. */
export function scriptsWith(file: string, readSource: (file: string) => string): string[] {
  const include = /include\/(\w+)\.lua$/.exec(file)?.[1];
  if (include === undefined) return [file];
  const folder = 'src/redis/lua';
  const scripts = readdirSync(join(PROJECT_ROOT, folder)).filter((name) => name.endsWith('.lua'));
  return scripts
    .map((name) => `${folder}/${name}`)
    .filter((path) => readSource(path).split('\n').includes(`--@include ${include}`));
}
