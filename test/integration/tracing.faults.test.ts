import { beforeAll, describe, expect, it } from '@jest/globals';
import { freePorts } from '../../scripts/lib/ports.ts';
import { openClient } from '../support/clients.ts';
import { scrape } from '../support/metrics.ts';
import { nodeUrl } from '../support/nodes.ts';
import { OtlpCollector } from '../support/otlp-collector.ts';
import { type StackProcess, type StackProcesses, startStack } from '../support/stack.ts';
import { Stopwatch } from '../support/stopwatch.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const MESSAGES = 100;
/** Fewer than the queue of a connection holds. */
const AT_ONCE = 20;
/** `FLUSH_MS` of src/telemetry/telemetry.ts, and the rest of a gateway's shutdown. */
const ENDS_WITHIN_MS = 4_000;

const env = {
  OTEL_BSP_SCHEDULE_DELAY: '1',
  OTEL_BSP_MAX_QUEUE_SIZE: '10',
  // Retry period of the exporter; ten seconds by default.
  OTEL_EXPORTER_OTLP_TIMEOUT: '300',
  DRAIN_SECONDS: '0',
  MESSAGE_RATE_PER_MINUTE: '1000',
};

const spans = async (stack: StackProcesses, result: string) => {
  return (await scrape(nodeUrl(0, stack.addresses), 'tollgate_trace_spans_total')).get(`result="${result}"`) ?? 0;
};

/** Sends several times as many messages as the span queue holds; each is answered. */
async function talk({ addresses }: StackProcesses): Promise<void> {
  const client = await openClient({ url: nodeUrl(0, addresses), ...mintToken({}, { stack: addresses }) });
  await client.welcome();
  for (let sent = 0; sent < MESSAGES; sent += AT_ONCE) {
    for (let i = sent; i < sent + AT_ONCE; i++) client.send('threads_list', { request_id: `req_${i}` });
    await client.waitFor(({ type, fields }) => {
      return type === 'threads_list' && fields.request_id === `req_${sent + AT_ONCE - 1}`;
    });
  }
}

async function endsInTime(gateway: StackProcess | undefined): Promise<void> {
  const watch = await Stopwatch.start();
  expect(await gateway?.stop()).toEqual({ code: 0, signal: null });
  expect(watch.ms).toBeLessThan(watch.allow(ENDS_WITHIN_MS));
}

describe('a collector that takes a request and never answers', () => {
  let stack: StackProcesses;
  let collector: OtlpCollector;

  beforeAll(async () => {
    collector = await OtlpCollector.start();
    collector.behaviour = () => undefined;
    stack = await startStack({
      workers: 0,
      env: { ...env, OTEL_EXPORTER_OTLP_TIMEOUT: '60000', OTEL_EXPORTER_OTLP_ENDPOINT: collector.url },
    });
  });

  it('costs no message anything: the spans behind it are dropped and counted, and the gateway ends in time', async () => {
    await talk(stack);
    await until(async () => (await spans(stack, 'dropped')) >= MESSAGES - 20, { label: 'dropped spans' });
    expect(collector.requests).toHaveLength(1);
    expect(await spans(stack, 'exported')).toBe(0);
    await endsInTime(stack.gateways[0]);
  });
});

describe('a collector that is not there', () => {
  let stack: StackProcesses;

  beforeAll(async () => {
    const [nobody] = await freePorts(1);
    stack = await startStack({
      workers: 0,
      env: { ...env, OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${nobody}` },
    });
  });

  it('delays no message: spans are counted as dropped, one line reports it, and the gateway ends in time', async () => {
    await talk(stack);
    await until(async () => (await spans(stack, 'failed')) > 0, { label: 'spans that were not taken' });
    const [gateway] = stack.gateways;
    await until(() => gateway?.output.includes('spans lost'), { label: 'the line that reports it' });
    expect(gateway?.output.match(/spans lost/g)).toHaveLength(1);
    await endsInTime(gateway);
  });
});

describe('a collector that is named and not wanted', () => {
  it('gets nothing', async () => {
    const collector = await OtlpCollector.start();
    const off = { OTEL_SDK_DISABLED: 'true', OTEL_EXPORTER_OTLP_ENDPOINT: collector.url };
    const stack = await startStack({ workers: 0, env: { ...env, ...off } });
    await talk(stack);
    await endsInTime(stack.gateways[0]);
    expect(collector.requests).toEqual([]);
  });
});
