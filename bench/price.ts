import { writeFileSync } from 'node:fs';
import { Command } from 'commander';
import { type BenchOptions, machine, printReport, progress, type Report } from './lib/report.ts';
import { medianAndRange } from './lib/statistics.ts';
import { type Figures, measureMemory, measureNodes, measureServer, measureStorm, type Size } from './price/measures.ts';
import { describeAim, ROWS, type Rounds, valuesOf } from './price/table.ts';
import { PEERS, type Peer, type TargetName, Targets } from './price/targets.ts';

/** The commit before issue 14, the price of a turn. */
const TODAY = 'e66ef8a';
const ROUNDS = 3;

const FULL: Size = {
  users: 1_000,
  messages: 20_000,
  deliveries: 20_000,
  turns: 800,
  nodes: 8,
  nodeDeliveries: 5_000,
  memory: [1_000, 5_000],
  memoryRounds: 3,
  storm: [2_000, 500],
};
/** A round of this size takes a third of the time; its spread is larger. */
const SHORT: Size = {
  ...FULL,
  messages: 10_000,
  deliveries: 10_000,
  turns: 500,
  nodeDeliveries: 3_000,
  memoryRounds: 1,
};
const QUICK: Size = {
  users: 16,
  messages: 80,
  deliveries: 80,
  turns: 16,
  nodes: 2,
  nodeDeliveries: 40,
  memory: [4, 20],
  memoryRounds: 1,
  storm: [16, 8],
};

export interface PriceOptions {
  readonly against: readonly Peer[];
  readonly commit: string;
  readonly size: Size;
  readonly rounds: number;
  /** Measures nodes, storm and memory on the first target only, without a warm-up. */
  readonly isSmoke?: boolean;
  /** Receives what is measured so far after each round, so that a later failure loses nothing. */
  readonly onRound?: (rounds: Rounds) => void;
}

type Results = Map<TargetName, Figures[]>;

/** Measures the working tree beside peers and an earlier commit, in alternating rounds. */
export async function measurePrice(options: PriceOptions): Promise<Rounds> {
  const { against, commit, size, rounds, isSmoke, onRound } = options;
  const targets = await Targets.start(against, commit);
  const results: Results = new Map(targets.list.map(({ name }) => [name, []]));
  try {
    const servers = await Promise.all(targets.list.map((target) => target.server()));
    for (let round = 0; round < rounds; round++) {
      // The order changes with each round, so that no target always follows the same neighbour.
      for (const at of targets.list.keys()) {
        const index = (at + round) % targets.list.length;
        const [target, server] = [targets.list[index], servers[index]];
        if (!target || !server) continue;
        progress(`round ${round + 1} of ${rounds}: ${target.name}`);
        // The first round of a server compiles its code: it is repeated.
        if (round === 0 && !isSmoke) await measureServer(target, server, size);
        const onOne = await measureServer(target, server, size);
        const isPartial = isSmoke && index > 0;
        results.get(target.name)?.push(
          isPartial
            ? onOne
            : {
                ...onOne,
                ...(await measureNodes(target, size)),
                ...(await measureStorm(target, size)),
                ...(round < size.memoryRounds ? await measureMemory(target, size) : {}),
              },
        );
      }
      onRound?.(Object.fromEntries(results));
    }
  } finally {
    await targets.close();
  }
  return Object.fromEntries(results);
}

export function priceReport(rounds: Rounds, { against, commit }: Pick<PriceOptions, 'against' | 'commit'>): Report {
  const names = Object.keys(rounds) as TargetName[];
  const rows = ROWS.map(({ figure, digits }) => [
    figure,
    ...names.map((name) => {
      const values = valuesOf(rounds, name, figure);
      return values.length === 0 ? '–' : medianAndRange(values, digits);
    }),
  ]);
  const aims = ROWS.map(({ figure, raw, socketIo }) => [
    figure,
    describeAim(rounds, figure, 'raw', raw),
    describeAim(rounds, figure, 'socket.io', socketIo),
  ]);
  return {
    name: 'The price of a turn',
    about: [
      `Medians of ${rounds.raw?.length} rounds (smallest–greatest), targets in turn, each with its own Redis.`,
      against.includes('today') ? `today is ${commit}.` : '',
      'p1k: Socket.IO, classic Redis adapter, JWT with a KeyObject. p4r: ws, one Lua call per connection and message.',
    ].join('\n'),
    tables: [
      { title: 'Figures', header: ['measure', ...names], rows },
      { title: 'Medians of the ratios of paired rounds', header: ['measure', 'raw', 'socket.io'], rows: aims },
    ],
    data: rounds,
  };
}

/** Formats a report as Markdown. */
export function markdown({ name, about, tables }: Report): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  const sections = tables.map(({ title, header, rows }) =>
    [`### ${title}`, '', line(header), line(header.map(() => '---')), ...rows.map(line)].join('\n'),
  );
  return `## ${name}\n\n${machine()}\n\n${about}\n\n${sections.join('\n\n')}\n`;
}

/** The smoke form of `npm test`: every row, beside both peers, with sizes whose figures mean nothing. */
export function smokePrice(): Promise<Rounds> {
  return measurePrice({ against: ['p1k', 'p4r'], commit: TODAY, size: QUICK, rounds: 1, isSmoke: true });
}

/** `npm run bench -- --against p1k,p4r,today`. */
export async function runPrice(argv: readonly string[]): Promise<void> {
  // The exit handlers remove the worktree; the kernel ends the children.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));
  const command = new Command('node bench/price.ts')
    .requiredOption('--against <names>', `what to measure beside the working tree: ${PEERS.join(',')}`)
    .option('--commit <ref>', 'the commit of `today`', TODAY)
    .option('--rounds <number>', 'paired rounds', String(ROUNDS))
    .option('--short', 'smaller rounds', false)
    .option('--quick', 'a smoke run; its numbers mean nothing', false)
    .option('--json <file>', 'write the figures to this file')
    .option('--markdown <file>', 'write the tables to this file')
    .parse(argv);
  interface Options extends BenchOptions {
    readonly against: string;
    readonly commit: string;
    readonly rounds: string;
    readonly short: boolean;
    readonly json?: string;
    readonly markdown?: string;
  }
  const { against: names, commit, rounds, short, quick, json, markdown: file } = command.opts<Options>();
  const against = names.split(',').map((name) => PEERS.find((peer) => peer === name) ?? unknownPeer(name, command));
  const size = quick ? QUICK : short ? SHORT : FULL;
  const write = (measured: Rounds) => {
    const report = priceReport(measured, { against, commit });
    const at = new Date().toISOString();
    if (json) writeFileSync(json, JSON.stringify({ at, machine: machine(), report }, null, 2));
    if (file) writeFileSync(file, markdown(report));
    return report;
  };
  const measured = await measurePrice({ against, commit, size, rounds: quick ? 1 : Number(rounds), onRound: write });
  process.stdout.write(`${machine()}\n`);
  printReport(write(measured));
}

function unknownPeer(name: string, command: Command): never {
  return command.error(`--against knows ${PEERS.join(', ')}, not ${name}`);
}
