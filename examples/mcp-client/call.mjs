import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

const { TOLLGATE_URL, TOLLGATE_TOKEN } = process.env;
const requestInit = { headers: { authorization: `Bearer ${TOLLGATE_TOKEN}` } };
const client = new Client({ name: 'example', version: '1.0.0' });
await client.connect(new StreamableHTTPClientTransport(new URL('/mcp', TOLLGATE_URL), { requestInit }));

const { tools } = await client.listTools();
console.log(tools.map(({ name }) => name).join(' '));

const { isError, content } = await client.callTool({ name: process.argv[2], arguments: {} });
console.log(isError ? 'failed' : 'succeeded', JSON.stringify(content));
await client.close();
