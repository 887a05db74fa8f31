import { Command, Option } from 'commander';
import { io } from 'socket.io-client';
import { TollgateError } from '../packages/client/src/errors.ts';
import type { RunOptions } from '../packages/client/src/tollgate.ts';
import { Tollgate } from '../packages/client/src/tollgate.ts';
import { socketIoTransport } from '../packages/client/src/transports/socketio.ts';
import { errorText, eventLine } from './lib/chat-events.ts';
import { DEMO_PLANS, DevAccess, stateDirArgument, stateDirOption, urlOption } from './lib/dev-access.ts';
import { runScript, UserError } from './lib/user-error.ts';

/** A run takes at most 45 seconds; the rest is for the connection. */
const TIMEOUT_MS = 60_000;
/** Consecutive failed attempts after which the gateway counts as unreachable. */
const MAX_FAILURES = 3;

interface Flags {
  readonly transport: 'ws' | 'socketio';
  readonly plan: string;
  readonly url?: string;
  readonly agent?: string;
  readonly thread?: string;
  readonly stateDir: string;
}

/** Prints every event of a run, and returns its answer and its thread. */
async function converse(
  client: Tollgate,
  message: string,
  options: RunOptions,
): Promise<{ text: string; thread: string }> {
  const run = client.run(message, options);
  const sentAt = performance.now();
  const print = (type: string, fields: Readonly<Record<string, unknown>>) => {
    process.stdout.write(`${eventLine(type, fields, performance.now() - sentAt)}\n`);
  };
  const { runId, threadId } = await run.accepted;
  print('agent_accepted', { run_id: runId });
  for await (const event of run) {
    print(event.type, { ...event });
    if (event.type === 'agent_failed') throw new UserError(`The run failed: ${errorText(event.error)}. Try again.`);
    if (event.type === 'agent_cancelled') throw new UserError('The run was cancelled.');
  }
  return { text: (await run.result()).text, thread: threadId };
}

/** Rejects when the gateway is unreachable, or does not answer in time. */
function outage(client: Tollgate, url: string): Promise<never> {
  return new Promise((_, reject) => {
    let failures = 0;
    client.on('error', (error) => {
      if (!error.retryable) return;
      failures += 1;
      if (failures < MAX_FAILURES) return;
      const advice = 'Is Tollgate running? Start it with: npm start';
      reject(new UserError(`Cannot connect to ${url} (${error.message}). ${advice}`));
    });
    client.on('identity', () => {
      failures = 0;
    });
    const noAnswer = new UserError(`No answer within ${TIMEOUT_MS / 1_000} s. Is a worker running?`);
    setTimeout(() => reject(noAnswer), TIMEOUT_MS).unref();
  });
}

function parse(): { words: string[]; flags: Flags } {
  const command = new Command('npm run chat --')
    .description('Sends one message to an agent and shows the events of its run.')
    .argument('<message...>', 'the message, e.g. "How is my workload doing?"')
    .addOption(
      new Option('--transport <kind>', 'transport of the connection').choices(['ws', 'socketio']).default('ws'),
    )
    .addOption(new Option('--plan <plan>', 'plan of the demo account').choices(DEMO_PLANS).default('pro'))
    .addOption(urlOption)
    .option('--agent <name>', 'agent that receives the message')
    .option('--thread <id>', 'thread to continue')
    .addOption(stateDirOption)
    .parse();
  return { words: command.args, flags: command.opts<Flags>() };
}

await runScript(async () => {
  const { words, flags } = parse();
  const access = new DevAccess(flags);
  const url = access.gatewayUrl;
  // Before the connection, so that a login that fails is reported as such.
  const token = await access.userToken(flags.plan);
  const client = new Tollgate({
    url,
    getToken: ({ previous }) => (previous === undefined ? token : access.userToken(flags.plan)),
    backoff: { firstMs: 200, maxMs: 1_000 },
    ...(flags.transport === 'socketio' ? { transport: socketIoTransport(io, { transports: ['websocket'] }) } : {}),
  });
  try {
    const conversation = converse(client, words.join(' '), { agent: flags.agent, thread: flags.thread });
    const { text, thread } = await Promise.race([conversation, outage(client, url)]);
    process.stdout.write(`\n${text}\n\n`);
    const own = stateDirArgument(flags.stateDir);
    process.stdout.write(
      `Continue: npm run chat --${own} --thread ${thread} "…"     The bill: npm run bill${own && ` --${own}`}\n`,
    );
    return 0;
  } catch (error) {
    throw error instanceof TollgateError
      ? new UserError(
          `The gateway refused: ${errorText({ ...error.fields, code: error.code, message: error.message })}`,
        )
      : error;
  } finally {
    client.close();
  }
});
