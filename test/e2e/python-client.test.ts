import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { expect, it } from '@jest/globals';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { closeAfter } from '../support/open-resources.ts';
import { describeWith, PYTHON_CLIENTS } from '../support/programs.ts';
import { stack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';

const PACKAGE = join(PROJECT_ROOT, 'packages/python');

/** Runs Python without writing byte code into the project. @throws Error with its output if it fails */
async function python(...args: string[]): Promise<string> {
  const child = spawn(PYTHON_CLIENTS.command, ['-B', ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  closeAfter('test', () => void child.kill('SIGKILL'));
  let [output, errors] = ['', ''];
  child.stdout.on('data', (chunk) => (output += chunk));
  child.stderr.on('data', (chunk) => (errors += chunk));
  const code = await new Promise((resolve) => child.once('close', resolve));
  if (code !== 0) throw new Error(`Python ended with ${code}: ${errors.slice(-4_000)}`);
  return output;
}

describeWith(PYTHON_CLIENTS, 'the Python client', () => {
  it('passes its own tests', () => python('-m', 'unittest', 'discover', '-s', join(PACKAGE, 'tests')), 60_000);

  it.each(['websocket', 'socketio', 'sse'])(
    'makes each request over %s without an event loop of the caller',
    async (transport) => {
      const url = stack().gateways[0]?.url ?? '';
      const { token } = mintToken({ plan: 'pro' });
      const args = [join(PACKAGE, 'tests/run_again.py'), transport, url, token, '0'];
      const { types, text, tools, ...others } = JSON.parse(await python(...args));
      expect([types[0], types.at(-1)]).toEqual(['agent_started', 'agent_completed']);
      expect(tools).toContain('list_agents');
      const question = 'How is my workload doing?';
      expect(others).toEqual({
        calls: [true, true, true],
        threads: [question],
        messages: [text, question],
        plan: 'pro',
      });
    },
    60_000,
  );
});
