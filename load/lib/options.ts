import { availableParallelism } from 'node:os';
import { Command, InvalidArgumentError, Option } from 'commander';
import { stateDirOption } from '../../scripts/lib/dev-access.ts';
import { parseThreshold, type Threshold } from './thresholds.ts';

export interface LoadOptions {
  readonly url?: string;
  readonly stateDir: string;
  readonly users: number;
  readonly turns: number;
  readonly ramp: number;
  readonly duration: number;
  readonly grace: number;
  readonly mix: string;
  readonly plan: string;
  readonly secret?: string;
  readonly tokens?: string;
  readonly login: boolean;
  readonly threads: number;
  readonly threshold: readonly Threshold[];
  readonly html?: string;
  readonly json?: string;
}

function number(min: number, max: number, isWhole = true): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() !== '' && value >= min && value <= max && (!isWhole || Number.isInteger(value))) return value;
    throw new InvalidArgumentError(`must be a ${isWhole ? 'whole ' : ''}number from ${min} to ${max}.`);
  };
}

/** Parses `200/s`, `200` (the same) or `90/min` into a number per second. */
function rate(text: string): number {
  const [, count = '', unit = 's'] = /^(\d+(?:\.\d+)?)(?:\/(s|min))?$/.exec(text) ?? [];
  const perSecond = Number(count) / (unit === 'min' ? 60 : 1);
  if (perSecond > 0 && perSecond <= 100_000) return perSecond;
  throw new InvalidArgumentError('must be a rate such as 200/s or 90/min.');
}

/** Parses the command line; prints a message and ends the process if an argument is invalid. */
export function parseOptions(argv: readonly string[]): LoadOptions {
  const cores = availableParallelism();
  const rateOption = (flags: string, text: string, fallback: number) =>
    new Option(flags, text).argParser(rate).default(fallback, `${fallback}/s`);
  return new Command('npm run load --')
    .description('Runs virtual users against a deployment and checks the results against thresholds.')
    .option('--url <url>', 'the deployment (default: the one that npm start or npm run cluster runs here)')
    .addOption(new Option('--users <n>', 'users, one connection each').argParser(number(1, 100_000)).default(100))
    .addOption(rateOption('--turns <rate>', 'turns (actions of a user) that become due, over all users', 10))
    .addOption(
      new Option('--duration <s>', 'seconds of load, after all users have connected')
        .argParser(number(1, 86_400))
        .default(30),
    )
    .option('--mix <file>', 'shares of transports and turns: a file, or a name in load/mixes', 'default')
    .addOption(rateOption('--ramp <rate>', 'connects during the ramp', 100))
    .addOption(
      new Option('--grace <s>', 'seconds that the last turns have to end').argParser(number(0, 600)).default(50),
    )
    .option('--plan <plan>', 'plan in the minted tokens', 'enterprise')
    .option('--secret <key>', 'secret that signs minted tokens (better: JWT_SECRET_KEY in the environment)')
    .option('--tokens <file>', 'file with one token per line, each of another user')
    .option('--login', 'log in with the demo accounts: four users at most', false)
    .addOption(
      new Option('--threads <n>', 'client threads; each uses up to one core')
        .argParser(number(1, 64))
        .default(Math.max(1, Math.floor(cores / 2)), 'half of the cores'),
    )
    .option(
      '--threshold <condition>',
      'e.g. "first_event_p99_ms<50"; repeatable',
      (text: string, all: readonly Threshold[]) => [...all, parseThreshold(text)],
      [],
    )
    .option('--html <file>', 'write a report with plots')
    .option('--json <file>', 'write the results')
    .addOption(stateDirOption)
    .parse([...argv], { from: 'user' })
    .opts<LoadOptions>();
}
