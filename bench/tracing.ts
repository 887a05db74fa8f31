import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { NO_TRACING } from '../src/lib/tracing.ts';
import { type Client, connectWs } from './lib/clients.ts';
import { startCpuClock } from './lib/cpu.ts';
import { Deployment } from './lib/deployment.ts';
import { type BenchOptions, progress, type Report, runAsProgram } from './lib/report.ts';
import { percentile } from './lib/statistics.ts';

const ROUNDS = 3;
const CALLS = 2_000;
const RUNS = 200;
const SPANS = 5_000_000;

/** A collector in this process that accepts everything, so that its CPU time is not the gateway's. */
async function startCollector(): Promise<{ url: string; close: () => void }> {
  const server = createServer((request, response) => {
    request.resume().on('end', () => response.end('{}'));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}`, close: () => server.close() };
}

async function callTools(client: Client, calls: number): Promise<void> {
  for (let i = 0; i < calls; i++) {
    const answered = client.next('tool_result');
    client.send('tool_call', { tool: 'list_agents', arguments: {} });
    await answered;
  }
}

async function run(client: Client, runs: number): Promise<void> {
  for (let i = 0; i < runs; i++) {
    const ended = client.next('agent_completed');
    client.send('agent_request', { message: 'How is my workload doing?' });
    await ended;
  }
}

/** Nanoseconds per unsampled span, beyond the call of the asynchronous function that it wraps. */
async function nanosOff(): Promise<{ plain: number; spanned: number }> {
  const work = async () => undefined;
  const time = async (one: () => Promise<unknown>) => {
    const startedAt = performance.now();
    for (let i = 0; i < SPANS; i++) await one();
    return ((performance.now() - startedAt) * 1e6) / SPANS;
  };
  const spanned = () => NO_TRACING.span('settle', { attributes: { id: 'usage_1', units: 1 } }, () => work());
  await time(work);
  await time(spanned);
  return { plain: await time(work), spanned: await time(spanned) };
}

/**
 * Runs the same calls and runs without traces, with 5 % and with 100 % sampled. Measures the CPU of gateway and worker
 * together.
 */
export async function tracing({ quick }: BenchOptions): Promise<Report> {
  const [rounds, calls, runs] = quick ? [1, 100, 10] : [ROUNDS, CALLS, RUNS];
  const collector = await startCollector();
  const deployment = await Deployment.start();
  const on = { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url };
  const twentieth = { ...on, OTEL_TRACES_SAMPLER: 'parentbased_traceidratio', OTEL_TRACES_SAMPLER_ARG: '0.05' };
  const variants = { off: {}, 'a twentieth': twentieth, all: on };
  const micros = new Map(Object.keys(variants).map((name) => [name, { call: [] as number[], run: [] as number[] }]));
  try {
    for (let round = 0; round < rounds; round++) {
      // Fresh processes per round, one variant after the other, so that other load on the machine affects all of them
      // alike.
      for (const [name, env] of Object.entries(variants)) {
        progress(`round ${round + 1} of ${rounds}: ${name}`);
        const [gateway, worker] = await Promise.all([deployment.gateway(env), deployment.worker(env)]);
        const client = await connectWs(gateway.url, deployment.token(`u${round}${name.replaceAll(' ', '')}`));
        await callTools(client, calls / 4);
        await run(client, runs / 4);
        const ofCalls = startCpuClock([gateway.pid]);
        await callTools(client, calls);
        const call = ofCalls().reduce((sum, one) => sum + one, 0) / calls;
        const ofRuns = startCpuClock([gateway.pid, worker.pid]);
        await run(client, runs);
        const whole = ofRuns().reduce((sum, one) => sum + one, 0) / runs;
        micros.get(name)?.call.push(call);
        micros.get(name)?.run.push(whole);
        client.close();
        await Promise.all([gateway.stop(), worker.stop()]);
      }
    }
  } finally {
    await deployment.close();
    collector.close();
  }
  const { plain, spanned } = await nanosOff();
  const median = (values: readonly number[] = []) => percentile([...values], 0.5);
  const base = { call: median(micros.get('off')?.call), run: median(micros.get('off')?.run) };
  const rows = [...micros].map(([name, { call, run: whole }]) => [
    name,
    median(call).toFixed(0),
    (median(call) / base.call).toFixed(2),
    median(whole).toFixed(0),
    (median(whole) / base.run).toFixed(2),
  ]);
  return {
    name: 'Traces',
    about: `${calls} tool calls and ${runs} agent runs, one at a time, medians of ${rounds} rounds. An unsampled span costs ${(spanned - plain).toFixed(0)} ns; the call that it wraps takes ${plain.toFixed(0)} ns.`,
    tables: [{ title: 'CPU, microseconds', header: ['traces', 'per call', '× off', 'per run', '× off'], rows }],
    data: { micros: Object.fromEntries(micros), nanos: { plain, spanned } },
  };
}

if (import.meta.main) await runAsProgram([tracing]);
