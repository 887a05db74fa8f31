import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { type Environment, ManagedProcess } from './processes.ts';
import { UserError } from './user-error.ts';

export interface Deployment {
  /** Address at which clients reach the gateways, such as that of the ingress. */
  readonly url: string;
  /** Address of the auth service from this machine. */
  readonly authUrl: string;
  /** Issuer of its tokens, if it is not `authUrl`. */
  readonly issuer?: string;
  readonly secrets: { readonly jwt: string; readonly service: string; readonly demoPassword: string };
}

export interface Load {
  readonly users: number;
  readonly iterationsPerSecond: number;
  readonly seconds: number;
}

const LoadResults = z.object({ passed: z.boolean(), figures: z.record(z.string(), z.number()) });
export type Figures = Readonly<Record<string, number>>;

const Feed = z.object({
  gap_detected: z.boolean(),
  records: z.array(z.object({ id: z.string(), sequence: z.number(), user_id: z.string() })),
});

/** Thresholds while parts of a deployment restart: times may grow, but nothing is lost, repeated or fails. */
const DISTURBED = [
  ...['events_lost<1', 'events_repeated<1', 'run_success>=0.999', 'connection_success>0.9'],
  ...['first_event_p95_ms<45000', 'run_max_ms<60000'],
];
/** No feed of a test is longer. */
const MAX_RECORDS = 1_000_000;

/** What a client and a billing team do with a deployment, wherever it runs, with the scripts that they would use. */
export class DeploymentCheck {
  readonly #deployment: Deployment;
  readonly #env: Environment;
  readonly #folder: string;

  constructor(deployment: Deployment) {
    const { authUrl, issuer, secrets } = deployment;
    this.#deployment = deployment;
    this.#folder = mkdtempSync(join(tmpdir(), 'tollgate-check-'));
    this.#env = {
      PATH: process.env.PATH,
      HOME: this.#folder,
      TOLLGATE_STATE_DIR: this.#folder,
      AUTH_SERVICE_URL: authUrl,
      JWT_ISSUER: issuer ?? authUrl,
      JWT_SECRET_KEY: secrets.jwt,
      SERVICE_SECRET: secrets.service,
      DEMO_PASSWORD: secrets.demoPassword,
    };
  }

  /** Sends one message to an agent and waits for the end of its run. @throws UserError with the output of the script */
  async chat(): Promise<void> {
    await this.#script('chat', ['scripts/chat.ts', 'How is my workload doing?', '--url', this.#deployment.url]);
  }

  /**
   * Reads the whole feed of usage records.
   * @returns their number
   * @throws UserError for a gap, a record that occurs twice, or a missing sequence number
   */
  async bill(): Promise<number> {
    const limit = ['--limit', String(MAX_RECORDS), '--json'];
    const text = await this.#script('bill', ['scripts/bill.ts', '--url', this.#deployment.url, ...limit]);
    const { records, gap_detected } = Feed.parse(JSON.parse(text));
    const faults = [
      ...(gap_detected ? ['the feed has a gap'] : []),
      ...(new Set(records.map(({ id }) => id)).size < records.length ? ['a record occurs twice'] : []),
      ...(records.some(({ sequence }, at) => at > 0 && sequence !== (records[at - 1]?.sequence ?? 0) + 1)
        ? ['a sequence number is missing']
        : []),
    ];
    if (faults.length > 0) throw new UserError(`The bill is wrong: ${faults.join(', ')}.`);
    return records.length;
  }

  /**
   * Disturbs the deployment while `npm run load` uses it. The load must outlast the disturbance.
   * @throws UserError if anything was lost, repeated or failed, or if the load ended first
   */
  async underLoad({ users, iterationsPerSecond, seconds }: Load, disturb: () => Promise<unknown>): Promise<Figures> {
    const json = join(this.#folder, 'load.json');
    const thresholds = DISTURBED.flatMap((threshold) => ['--threshold', threshold]);
    const size = ['--users', users, '--turns', `${iterationsPerSecond}/s`, '--duration', seconds].map(String);
    const args = ['load/main.ts', '--url', this.#deployment.url, ...size, ...thresholds, '--json', json];
    const load = this.#start('load', args);
    let ended = false;
    const loaded = load.finished.finally(() => {
      ended = true;
    });
    const disturbed = disturb().then(
      () => {
        if (ended) throw new UserError('The load ended before the disturbance: give it more seconds.');
      },
      async (error) => {
        await load.child.stop();
        throw error;
      },
    );
    const results = await Promise.allSettled([disturbed, loaded]);
    for (const result of results) if (result.status === 'rejected') throw result.reason;
    return LoadResults.parse(JSON.parse(readFileSync(json, 'utf8'))).figures;
  }

  /** Returns whether the auth service issues tokens. */
  async hasTokens(): Promise<boolean> {
    const { authUrl, secrets } = this.#deployment;
    const body = new URLSearchParams({
      grant_type: 'password',
      username: 'pro@demo.local',
      password: secrets.demoPassword,
    });
    const answer = await fetch(`${authUrl}/oauth/token`, { method: 'POST', body }).catch(() => undefined);
    return answer?.ok ?? false;
  }

  close(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }

  #script(name: string, args: readonly string[]): Promise<string> {
    return this.#start(name, args).finished;
  }

  #start(
    name: string,
    args: readonly string[],
  ): { readonly child: ManagedProcess; readonly finished: Promise<string> } {
    const lines: string[] = [];
    const child = new ManagedProcess({
      name,
      command: process.execPath,
      args,
      env: this.#env,
      onLine: (line, stream) => {
        if (stream === 'stdout') lines.push(line);
      },
    });
    const finished = child.exited.then(({ code }) => {
      if (code !== 0) throw new UserError(`npm run ${name} failed:\n${lines.join('\n')}\n${child.output}`);
      return lines.join('\n');
    });
    return { child, finished };
  }
}
