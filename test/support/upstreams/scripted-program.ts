import { createInterface } from 'node:readline';

/**
 * A program of 2025-06-18 over stdio that behaves as its arguments say: `slow=<ms>` until it answers, `exit` at a
 * request before `initialize`, `mute` to such a request, `undeclared` tools, `large=<bytes>` of each result.
 */
const options = new Map(
  process.argv.slice(2).map((argument) => {
    const [name = '', value = ''] = argument.split('=');
    return [name, value] as const;
  }),
);
const startedAt = Date.now();
const slowMs = Number(options.get('slow')) || 0;
let initialized = false;

const tool = { name: 'good', inputSchema: { type: 'object' } };
const results: Readonly<Record<string, () => object>> = {
  initialize: () => {
    initialized = true;
    const capabilities = options.has('undeclared') ? {} : { tools: {} };
    return { protocolVersion: '2025-06-18', serverInfo: { name: 'program', version: '1' }, capabilities };
  },
  'tools/list': () => ({ tools: [tool, { ...tool, name: 'odd' }, null] }),
};

function call(params: { readonly name?: string }): object {
  const large = params.name === 'odd' ? 'x'.repeat(Number(options.get('large')) || 0) : '';
  return { content: [{ type: 'text', text: large || `fine ${startedAt}` }] };
}

createInterface({ input: process.stdin }).on('line', (line) => {
  const { id, method, params } = JSON.parse(line);
  if (id === undefined) return;
  if (!initialized && method !== 'initialize') {
    if (options.has('exit')) process.exit(1);
    if (options.has('mute')) return;
  }
  const result = method === 'tools/call' ? call(params) : results[method]?.();
  const error = { code: -32601, message: 'Method not found' };
  const answer = { jsonrpc: '2.0', id, ...(result ? { result } : { error }) };
  setTimeout(() => process.stdout.write(`${JSON.stringify(answer)}\n`), Math.max(0, startedAt + slowMs - Date.now()));
});
