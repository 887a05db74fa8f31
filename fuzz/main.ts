import { Command, InvalidArgumentError, Option } from 'commander';
import { runScript, UserError } from '../scripts/lib/user-error.ts';
import { readCorpus, writeCorpus } from './lib/corpus.ts';
import { Coverage } from './lib/coverage.ts';
import { fuzz } from './lib/fuzz.ts';
import type { Target } from './lib/target.ts';

interface Flags {
  readonly seconds: number;
  readonly seed: number;
  readonly keep: boolean;
}

const MAX_SHOWN_BYTES = 2_000;
const MAX_SHOWN_LINES = 6;

function wholeNumber(text: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= 1) return value;
  throw new InvalidArgumentError('must be a whole number of at least 1.');
}

function selected(targets: readonly Target[], names: readonly string[]): readonly Target[] {
  const unknown = names.filter((name) => !targets.some((target) => target.name === name));
  if (unknown.length > 0) {
    throw new UserError(
      `unknown: ${unknown.join(', ')}. The targets are ${targets.map(({ name }) => name).join(', ')}.`,
    );
  }
  return names.length === 0 ? targets : targets.filter(({ name }) => names.includes(name));
}

function cpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

await runScript(async () => {
  const command = new Command('npm run fuzz --')
    .description('Fuzzes the parsers of foreign bytes, guided by V8 coverage. Exit code 1 with a finding.')
    .argument('[targets...]', 'default: all')
    .addOption(new Option('--seconds <n>', 'CPU time per target').argParser(wholeNumber).default(60))
    .addOption(new Option('--seed <n>', 'of the mutations').argParser(wholeNumber).default(1))
    .option('--keep', 'writes the inputs that reached new code to fuzz/corpus', false)
    .parse();
  const { seconds, seed, keep } = command.opts<Flags>();
  const coverage = new Coverage();
  const { TARGETS } = await import('./lib/targets.ts');
  let findings = 0;
  for (const target of selected(TARGETS, command.args)) {
    const end = cpuSeconds() + seconds;
    const result = await fuzz(target, {
      coverage,
      seed,
      corpus: readCorpus(target),
      isOver: () => cpuSeconds() >= end,
    });
    const growth = `${result.blocksOfCorpus} to ${result.blocks} blocks, the last new one at input ${result.lastNew}`;
    const counts = `${result.runs} inputs, ${growth}, ${result.corpus.length} kept`;
    process.stdout.write(`${target.name}: ${counts}, ${result.findings.length} findings\n`);
    for (const { input, problem } of result.findings) {
      const shown = JSON.stringify(input.toString('latin1')).slice(0, MAX_SHOWN_BYTES);
      process.stdout.write(
        `  ${problem.split('\n').slice(0, MAX_SHOWN_LINES).join('\n')}\n  input (Latin-1): ${shown}\n`,
      );
    }
    findings += result.findings.length;
    if (keep) writeCorpus(target, result.corpus);
  }
  return findings === 0 ? 0 : 1;
});
