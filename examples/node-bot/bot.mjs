import { Tollgate } from '@tollgate/client';

const { TOLLGATE_URL: url, TOLLGATE_TOKEN: token } = process.env;
const tollgate = new Tollgate({ url, getToken: () => token });
tollgate.on('error', (error) => console.error(`${error.code}: ${error.message}`));

const stop = new AbortController();
process.once('SIGINT', () => stop.abort());

const run = tollgate.run(process.argv[2] ?? 'Hello', { signal: stop.signal });
for await (const event of run) {
  if (event.type === 'agent_thinking') console.log(event.thought);
  if (event.type === 'tool_completed') console.log(`${event.tool_name} took ${event.duration_ms} ms`);
}
const { text } = await run.result();
console.log(`\n${text}`);
tollgate.close();
