import { join } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { PROJECT_ROOT } from '../scripts/lib/processes.ts';
import { runScript } from '../scripts/lib/user-error.ts';
import { type CampaignOptions, runModule, selectMutants } from './lib/campaign.ts';
import { CORE_MODULES, type CoreModule } from './lib/modules.ts';
import { Results, scoreRow, survivorLine } from './lib/results.ts';

interface Flags {
  readonly only: readonly CoreModule[];
  readonly sample?: number;
  readonly seed: string;
  readonly processes: number;
  readonly minutes: number;
  readonly again?: true;
  readonly report?: true;
}

function wholeNumber(text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value > 0) return value;
  throw new InvalidArgumentError('must be a whole number above 0.');
}

function modules(text: string): CoreModule[] {
  const words = text.split(',').map((word) => word.trim().toLowerCase());
  const found = CORE_MODULES.filter(({ name }) => words.some((word) => name.toLowerCase().includes(word)));
  if (found.length > 0) return found;
  throw new InvalidArgumentError(`names none of ${CORE_MODULES.map(({ name }) => name).join(', ')}.`);
}

function parseFlags(argv: readonly string[]): Flags {
  return new Command('npm run mutation --')
    .description('Changes the core in small ways, and lists the changes that no test notices.')
    .addOption(
      new Option('--only <modules>', 'modules whose names contain one of these words')
        .argParser(modules)
        .default(CORE_MODULES, 'all'),
    )
    .option('--sample <n>', 'mutants per module; default: all', wholeNumber)
    .option('--seed <text>', 'seed of the sample', '1')
    .option('--processes <n>', 'mutants at a time', wholeNumber, 1)
    .option('--minutes <n>', 'begins no mutant after this time; the next run continues', wholeNumber, 1_440)
    .option('--again', 'also runs mutants again that were not killed')
    .option('--report', 'runs nothing, and prints the results of earlier runs')
    .parse([...argv], { from: 'user' })
    .opts();
}

await runScript(async () => {
  const flags = parseFlags(process.argv.slice(2));
  const results = new Results(join(PROJECT_ROOT, '.tollgate/mutation/results.json'));
  const options: CampaignOptions = {
    sample: flags.sample,
    seed: flags.seed,
    processes: flags.processes,
    until: Date.now() + flags.minutes * 60_000,
    again: flags.again ?? false,
    print: (line) => process.stderr.write(`${line}\n`),
  };
  if (!flags.report) for (const module of flags.only) await runModule(module, results, options);
  const rows: string[] = [];
  const survivors: string[] = [];
  for (const module of flags.only) {
    const { existing, selected } = await selectMutants(module, options);
    const found = selected.flatMap(({ id }) => results.get(id) ?? []);
    rows.push(scoreRow(module.name, existing, found));
    survivors.push(...found.filter(({ outcome }) => /survived|untested|unclear/.test(outcome)).map(survivorLine));
  }
  const head = [
    '| module | mutants | run | killed | survived | not executed | unclear | score |',
    '| --- | --- | --- | --- | --- | --- | --- | --- |',
  ];
  process.stdout.write(`${[...survivors, '', ...head, ...rows].join('\n')}\n`);
  return 0;
});
