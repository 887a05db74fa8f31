import packageFile from '../../package.json' with { type: 'json' };
import type { Config } from '../config.ts';
import { systemClock } from '../lib/clock.ts';
import { createLogger, type Logger } from '../lib/logger.ts';
import { Metrics } from '../lib/metrics.ts';
import { withoutTrailing } from '../lib/text.ts';
import { NO_TRACING, type Tracing } from '../lib/tracing.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { ErrorName } from './otel-tracing.ts';
import type { SpanResult } from './span-queue.ts';

/** What tells how a process is doing: its log, its metrics, and its traces where they are wanted. */
export interface Telemetry {
  readonly logger: Logger;
  readonly metrics: Metrics;
  readonly tracing: Tracing;
}

type TracingConfig = Pick<Config, 'ENVIRONMENT' | Extract<keyof Config, `OTEL_${string}`>>;

/** Spans sent at once: the default of the specification. */
const BATCH = 512;
/** What a process that ends gives its last spans; an exporter that hangs costs it no more than this. */
const FLUSH_MS = 2_000;
/** Nobody reads more lines of a collector that is away than this. */
const COMPLAIN_EVERY_MS = 60_000;

/**
 * @param options.instance tells this process from others of its kind
 * @param options.logger in place of the one on standard output, whose lines have no ids of traces then
 */
export async function startTelemetry(
  config: TracingConfig & Pick<Config, 'LOG_LEVEL'>,
  {
    role,
    instance,
    logger: customLogger,
  }: { role: 'gateway' | 'worker'; instance: string; logger?: Logger | undefined },
): Promise<Telemetry> {
  const metrics = new Metrics();
  let complainAt = 0;
  const tracing = await startTracing(config, { role, instance }, (result, spans) => {
    metrics.traceSpans.inc({ result }, spans);
    if (result === 'exported' || Date.now() < complainAt) return;
    complainAt = Date.now() + COMPLAIN_EVERY_MS;
    logger.warn({ result, spans }, 'spans are lost: the collector does not take them');
  });
  const logger = customLogger ?? createLogger(role, config.LOG_LEVEL, () => tracing.logFields());
  return { logger, metrics, tracing };
}

async function startTracing(
  config: TracingConfig,
  { role, instance }: { readonly role: string; readonly instance: string },
  onResult: (result: SpanResult, spans: number) => void,
): Promise<Tracing> {
  const url = tracesUrl(config);
  if (url === undefined || config.OTEL_SDK_DISABLED) return NO_TRACING;
  // Loaded only where it is used: the SDK and the exporter take a tenth of a second and 7 MiB.
  const [{ OTLPTraceExporter }, { SpanQueue }, { OtelTracing }] = await Promise.all([
    import('@opentelemetry/exporter-trace-otlp-http'),
    import('./span-queue.ts'),
    import('./otel-tracing.ts'),
  ]);
  const options = {
    maxQueued: config.OTEL_BSP_MAX_QUEUE_SIZE,
    maxBatch: BATCH,
    delayMs: config.OTEL_BSP_SCHEDULE_DELAY,
    timeoutMs: FLUSH_MS,
    onResult,
  };
  const processor = new SpanQueue({ exporter: new OTLPTraceExporter({ url }), clock: systemClock }, options);
  const resource = {
    'service.name': `tollgate-${role}`,
    'service.namespace': 'tollgate',
    'service.version': packageFile.version,
    'service.instance.id': instance,
    'deployment.environment.name': config.ENVIRONMENT,
    ...config.OTEL_RESOURCE_ATTRIBUTES,
    ...(config.OTEL_SERVICE_NAME === undefined ? {} : { 'service.name': config.OTEL_SERVICE_NAME }),
  };
  const sampling = { sampler: config.OTEL_TRACES_SAMPLER, ratio: config.OTEL_TRACES_SAMPLER_ARG };
  return new OtelTracing({ processor }, { resource, ...sampling, nameError });
}

/** The one for traces is used as it is, the one for all signals is where theirs begin: OTLP exporter configuration. */
function tracesUrl(config: TracingConfig): string | undefined {
  const { OTEL_EXPORTER_OTLP_ENDPOINT: base, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: traces } = config;
  return traces ?? (base === undefined ? undefined : `${withoutTrailing(base, '/')}/v1/traces`);
}

function nameError(thrown: unknown): ErrorName {
  if (thrown instanceof TollgateError) return { type: thrown.code, failure: thrown.row.http >= 500 };
  return { type: thrown instanceof Error ? thrown.name : '_OTHER', failure: true };
}
