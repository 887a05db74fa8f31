import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from '@jest/globals';
import type { io } from 'socket.io-client';
import { startLoadBalancer } from '../support/load-balancer.ts';
import { closeAfter } from '../support/open-resources.ts';
import { describeWith, HAPROXY, PYTHON_CLIENTS } from '../support/programs.ts';
import { stack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

/** The package exports no types; as far as used here, they equal those of the current version. */
const { io: io40 }: { io: typeof io } = createRequire(import.meta.url)('socket.io-client-4.0');
const CHAT = fileURLToPath(new URL('../support/python/chat.py', import.meta.url));
const MESSAGE = 'How is my workload doing?';
const RUN = ['agent_started', 'agent_thinking', 'tool_executing', 'tool_completed', 'agent_completed'];
const TIMEOUT_MS = 30_000;

interface Received {
  readonly type: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

/** Expects all kinds of event of a run in order, without gap and repetition. */
function expectCompleteRun(received: readonly Received[]): void {
  const durable = received.filter(({ fields }) => typeof fields.seq === 'number' && fields.run_id !== undefined);
  expect([...new Set(durable.map(({ type }) => type))]).toEqual(RUN);
  const first = Number(durable[0]?.fields.seq);
  expect(durable.map(({ fields }) => fields.seq)).toEqual(durable.map((_, at) => first + at));
}

describeWith(HAPROXY, 'through HAProxy', () => {
  let url: string;
  beforeAll(async () => {
    ({ url } = await startLoadBalancer(stack().gateways.map((gateway) => gateway.url)));
  });

  describe.each(['websocket', 'polling'])('socket.io-client 4.0 over %s', (transport) => {
    it('B8 B9 connects, is answered, and gets a whole run in order', async () => {
      const socket = io40(url, {
        auth: { token: mintToken().token },
        transports: [transport],
        reconnection: false,
        // A browser stores the cookie; outside of one this client does not.
        extraHeaders: { cookie: await affinityCookie(url) },
      });
      closeAfter('test', () => void socket.close());
      const received: Received[] = [];
      socket.onAny((type: string, fields: Received['fields']) => void received.push({ type, fields }));
      await until(() => received.some(({ type }) => type === 'connection_established'), { timeoutMs: TIMEOUT_MS });
      const answer = await new Promise((resolve) => socket.emit('agent_request', { message: MESSAGE }, resolve));
      expect(answer).toMatchObject({ ok: true, type: 'agent_accepted' });
      await until(() => received.some(({ type }) => type === 'agent_completed'), { timeoutMs: TIMEOUT_MS });
      expectCompleteRun(received);
      expect(socket.io.engine.transport.name).toBe(transport);
    }, 60_000);
  });

  describeWith(PYTHON_CLIENTS, "Python's", () => {
    it.each([
      ['websockets', 'websockets'],
      ['python-socketio over websocket', 'websocket'],
      ['python-socketio over polling', 'polling'],
    ])(
      '%s connects, is answered, and gets a whole run in order',
      async (_name, transport) => {
        // Its HTTP client stores cookies for names, not for addresses.
        const named = url.replace('127.0.0.1', 'localhost');
        const received = await python([CHAT, transport, named, mintToken().token, MESSAGE]);
        expectCompleteRun(received);
        if (transport === 'websockets') return;
        expect(received.find(({ type }) => type === 'transport')?.fields).toEqual({ name: transport });
        expect(received.find(({ type }) => type === 'acknowledgement')?.fields).toMatchObject({ ok: true });
      },
      60_000,
    );
  });
});

async function affinityCookie(url: string): Promise<string> {
  const [cookie] = (await fetch(new URL('/health/live', url))).headers.getSetCookie();
  return cookie?.split(';')[0] ?? '';
}

/** Returns the program's output, one JSON object per line. @throws Error with its errors if it fails */
async function python(args: readonly string[]): Promise<Received[]> {
  const child = spawn(PYTHON_CLIENTS.command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  closeAfter('test', () => void child.kill('SIGKILL'));
  let [output, errors] = ['', ''];
  child.stdout.on('data', (chunk) => (output += chunk));
  child.stderr.on('data', (chunk) => (errors += chunk));
  const code = await new Promise((resolve) => child.once('close', resolve));
  if (code !== 0) throw new Error(`the client ended with ${code}: ${errors.slice(-2_000)}\n${output.slice(-2_000)}`);
  return output
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
}
