import { writeFileSync } from 'node:fs';
import { DevAccess } from '../scripts/lib/dev-access.ts';
import { onStopSignals } from '../scripts/lib/stop-signals.ts';
import { runScript } from '../scripts/lib/user-error.ts';
import { htmlReport } from './lib/html-report.ts';
import { readMix } from './lib/mix.ts';
import { type LoadOptions, parseOptions } from './lib/options.ts';
import { distributionsOf, machine, progressLine, type Results, summary } from './lib/results.ts';
import { Run, type RunPlan, type RunResult, type Second } from './lib/run.ts';
import { evaluate, figuresOf } from './lib/thresholds.ts';
import { userTokens } from './lib/tokens.ts';

const MS = 1_000;
const EXIT_KILLED = 130;
/** Interval of progress lines without a terminal. */
const PROGRESS_EVERY_SECONDS = 5;

async function planOf(options: LoadOptions): Promise<RunPlan> {
  const access = new DevAccess(options);
  const mix = readMix(options.mix);
  const [durationMs, graceMs] = [options.duration * MS, options.grace * MS];
  const tokens = await userTokens(access, { ...options, lifeMs: durationMs + graceMs });
  const { turns: iterationsPerSecond, ramp: connectsPerSecond } = options;
  const threads = Math.min(options.threads, options.users);
  return { url: access.gatewayUrl, mix, tokens, iterationsPerSecond, connectsPerSecond, durationMs, graceMs, threads };
}

/** Prints progress: one line, overwritten each second, on a terminal; otherwise a line every few seconds. */
function progressTo(out: NodeJS.WriteStream, plan: RunPlan): (second: Second) => void {
  const expected = plan.tokens.length / plan.connectsPerSecond + plan.durationMs / MS;
  let printed = 0;
  return (second) => {
    const line = progressLine(second, plan.tokens.length, expected);
    if (out.isTTY) out.write(`\r\u001b[K${line.slice(0, out.columns - 1)}`);
    else if (printed++ % PROGRESS_EVERY_SECONDS === 0) out.write(`${line}\n`);
  };
}

function resultsOf(options: LoadOptions, plan: RunPlan, result: RunResult, startedAt: Date): Results {
  const figures = figuresOf(result);
  const thresholds = evaluate(figures, options.threshold);
  return {
    started_at: startedAt.toISOString(),
    url: plan.url,
    users: plan.tokens.length,
    turns_per_second: plan.iterationsPerSecond,
    duration_seconds: options.duration,
    threads: plan.threads,
    mix: plan.mix,
    machine: machine(),
    passed: thresholds.every(({ passed, level }) => passed || level === 'wanted'),
    thresholds,
    figures,
    errors: result.errors,
    ramp_seconds: result.rampSeconds,
    client: { cores: result.clientCores, loop_delay_p99_ms: result.loopDelayP99Ms },
    seconds: result.seconds,
    distributions: distributionsOf(result.histograms),
  };
}

await runScript(async () => {
  const options = parseOptions(process.argv.slice(2));
  const plan = await planOf(options);
  const startedAt = new Date();
  const run = new Run(plan, progressTo(process.stderr, plan));
  // The first Ctrl-C ends the load and prints the results so far.
  onStopSignals(
    () => run.stop(),
    () => process.exit(EXIT_KILLED),
  );
  const result = await run.run();
  if (process.stderr.isTTY) process.stderr.write('\n');
  const results = resultsOf(options, plan, result, startedAt);
  if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(results, null, 2)}\n`);
  if (options.html !== undefined) writeFileSync(options.html, htmlReport(results));
  process.stdout.write(`${summary(results, result.histograms)}\n\n${results.passed ? 'Passed.' : 'Failed.'}\n`);
  if (results.figures.connection_success === 0) {
    process.stdout.write(`Nothing connected to ${plan.url}. Is the deployment running? npm start, or --url <url>\n`);
  }
  return results.passed ? 0 : 1;
});
