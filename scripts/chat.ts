import { randomUUID } from 'node:crypto';
import { Command, Option } from 'commander';
import { type ChatTransport, openChatConnection } from './lib/chat-connection.ts';
import { errorText, eventLine } from './lib/chat-events.ts';
import { DevAccess, stateDirOption, urlOption } from './lib/dev-access.ts';
import { runScript, UserError } from './lib/user-error.ts';

/** A run takes at most 45 seconds; the rest is for the connection. */
const TIMEOUT_MS = 60_000;
const PLANS = ['free', 'pro', 'enterprise', 'developer'];

interface Flags {
  readonly transport: ChatTransport;
  readonly plan: string;
  readonly url?: string;
  readonly agent?: string;
  readonly thread?: string;
  readonly stateDir: string;
}

interface ChatRequest {
  readonly message: string;
  readonly agent: string | undefined;
  readonly thread_id: string | undefined;
  readonly request_id: string;
}

/** Sends the request once connected, prints every event of its run, and resolves with the fields of the last one. */
function converse(
  target: { transport: ChatTransport; url: string; token: string },
  request: ChatRequest,
): Promise<Record<string, unknown>> {
  return new Promise((resolve, reject) => {
    let sentAt: number | undefined;
    const finishWith = (finish: () => void) => {
      // Comes first: `close` is reported as the end of the connection and must not count as a failure.
      finish();
      clearTimeout(timer);
      connection.close();
    };
    const fail = (text: string) => finishWith(() => reject(new UserError(text)));
    const onEvent = (type: string, fields: Record<string, unknown>) => {
      if (type === 'connection_established' && sentAt === undefined) {
        sentAt = performance.now();
        connection.send('agent_request', { ...request });
        return;
      }
      // An error without a request id concerns the connection, which only this script uses.
      const isOurs = fields.request_id === request.request_id || (type === 'error' && fields.request_id === undefined);
      if (!isOurs) return;
      if (sentAt !== undefined) process.stdout.write(`${eventLine(type, fields, performance.now() - sentAt)}\n`);
      if (type === 'agent_completed') finishWith(() => resolve(fields));
      else if (type === 'agent_failed') fail(`The run failed: ${errorText(fields.error ?? fields)}. Try again.`);
      else if (type === 'agent_cancelled') fail('The run was cancelled.');
      else if (type === 'error') fail(`The gateway refused: ${errorText(fields)}`);
    };
    const onEnd = (reason: string) => {
      const advice = 'Is Tollgate running? Start it with: npm start';
      fail(`The connection to ${target.url} ended before the answer (${reason}). ${advice}`);
    };
    const timer = setTimeout(() => fail(`No answer within ${TIMEOUT_MS / 1_000} s. Is a worker running?`), TIMEOUT_MS);
    const connection = openChatConnection(target, { onEvent, onEnd });
  });
}

function parse(): { words: string[]; flags: Flags } {
  const command = new Command('npm run chat --')
    .description('Sends one message to an agent and shows the events of its run.')
    .argument('<message...>', 'the message, e.g. "How is my workload doing?"')
    .addOption(
      new Option('--transport <kind>', 'transport of the connection').choices(['ws', 'socketio']).default('ws'),
    )
    .addOption(new Option('--plan <plan>', 'plan of the demo account').choices(PLANS).default('pro'))
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
  const target = { transport: flags.transport, url: access.gatewayUrl, token: await access.userToken(flags.plan) };
  const last = await converse(target, {
    message: words.join(' '),
    agent: flags.agent,
    thread_id: flags.thread,
    request_id: `req_${randomUUID()}`,
  });
  process.stdout.write(`\n${last.final_response}\n\n`);
  process.stdout.write(`Continue: npm run chat -- --thread ${last.thread_id} "…"     The bill: npm run bill\n`);
  return 0;
});
