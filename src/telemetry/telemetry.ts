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

/** Log, metrics and, if configured, traces of a process. */
export interface Telemetry {
  readonly logger: Logger;
  readonly metrics: Metrics;
  readonly tracing: Tracing;
}

type TracingConfig = Pick<Config, 'ENVIRONMENT' | Extract<keyof Config, `OTEL_${string}`>>;

/** Maximum spans per batch: the default of the OpenTelemetry specification. */
const BATCH = 512;
/** Timeout for sending the last spans at shutdown; bounds the delay by a hanging exporter. */
const FLUSH_MS = 2_000;
/** Minimum interval between warnings about lost spans, so that an outage of the collector does not flood the log. */
const LOG_EVERY_MS = 60_000;

/**
 * @param options.instance identifies this process among others of the same role
 * @param options.logger replaces the logger on standard output; its lines have no trace ids
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
  let nextLogAt = 0;
  const tracing = await startTracing(config, { role, instance }, (result, spans) => {
    metrics.traceSpans.inc({ result }, spans);
    if (result === 'exported' || Date.now() < nextLogAt) return;
    nextLogAt = Date.now() + LOG_EVERY_MS;
    logger.warn({ result, spans }, 'spans lost, the collector does not accept them');
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
  // Loaded only if tracing is enabled: the SDK and the exporter take a tenth of a second and 7 MiB.
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

/**
 * OTLP exporter configuration: the URL for traces is used as it is; the path of the signal is appended to the common
 * URL.
 */
function tracesUrl(config: TracingConfig): string | undefined {
  const { OTEL_EXPORTER_OTLP_ENDPOINT: base, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: traces } = config;
  return traces ?? (base === undefined ? undefined : `${withoutTrailing(base, '/')}/v1/traces`);
}

function nameError(thrown: unknown): ErrorName {
  if (thrown instanceof TollgateError) return { type: thrown.code, failure: thrown.row.http >= 500 };
  return { type: thrown instanceof Error ? thrown.name : '_OTHER', failure: true };
}
