import type { Client, ClientOptions, JsonSchemaValidatorResult, Transport } from '@modelcontextprotocol/client';
import packageFile from '../../package.json' with { type: 'json' };
import type { ToolServer } from '../catalogue/tool-servers.ts';
import { type Clock, sleep } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import { BoundedHttp } from './bounded-http.ts';
import { describe, UpstreamFault } from './faults.ts';
import { boundMessages, endUnanswered } from './messages.ts';

/** Timeout of protocol negotiation and initialization. */
const CONNECT_TIMEOUT_MS = 10_000;
/** Maximum size of one message of a program; results are cut at 64 KiB. */
const MAX_LINE_BYTES = 1024 * 1024;
/** Maximum number of pages per list. */
const MAX_PAGES = 16;
/** Maximum length of a chunk of a program's stderr in the debug log. */
const MAX_STDERR_CHARS = 1_000;
/** Bounds of the delay before a stream that the server ended is reopened. The server suggests the delay. */
const REOPEN_MS = { least: 1_000, most: 60_000 };
/** Timeout for terminating the MCP session while the connection closes. */
const TERMINATE_TIMEOUT_MS = 500;

export interface Connection {
  readonly client: Client;
  /** Closes the connection. Requests in flight fail. Idempotent. */
  close(): Promise<void>;
}

export interface ConnectionDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  /** Called when the server reports that a list has changed. */
  readonly onChange: () => void;
  /** Called when the server exceeds the message rate; the connection is then closed. */
  readonly onFlood: () => void;
  /** Called when the connection has ended. */
  readonly onClose: () => void;
}

/** Connects a client to the server. @throws UpstreamFault when the server is unreachable or does not support MCP */
export async function connect(server: ToolServer, deps: ConnectionDeps, signal: AbortSignal): Promise<Connection> {
  // Loaded only if tool servers are configured.
  const { Client } = await import('@modelcontextprotocol/client');
  const info = { name: 'tollgate', title: 'Tollgate', version: packageFile.version };
  const client = new Client(info, clientOptions(server, deps));
  client.onerror = (error) =>
    deps.logger.debug({ server: server.name, error: describe(error) }, 'upstream client reported an error');
  const handle = await openTransport(server, deps);
  let closing: Promise<void> | undefined;
  const close = () => {
    closing ??= closeAll(client, handle);
    return closing;
  };
  client.onclose = deps.onClose;
  try {
    await client.connect(handle.transport, {
      timeout: CONNECT_TIMEOUT_MS,
      maxTotalTimeout: CONNECT_TIMEOUT_MS,
      signal,
    });
  } catch (cause) {
    await close();
    throw new UpstreamFault('unreachable', `no connection: ${describe(cause)}`);
  }
  // Without its subscription the client misses changes, so the next request opens a new connection.
  void client.autoOpenedSubscription?.closed.then((how) => how !== 'local' && deps.onClose());
  if (server.address.kind === 'http') endUnanswered(handle.transport);
  boundMessages(handle.transport, deps.clock, () => {
    deps.onFlood();
    handle.kill();
    void close();
  });
  return { client, close };
}

/** A transport to a server, and the functions that release its resources. */
interface TransportHandle {
  readonly transport: Transport;
  /** Ends the session; called before the client is closed. */
  readonly terminate: () => Promise<unknown>;
  /** Cuts the connection at once, without a protocol message; for a server that floods the client. */
  readonly kill: () => void;
  /** Releases resources; called after the client is closed. */
  readonly dispose: () => Promise<void>;
}

async function closeAll(client: Client, handle: TransportHandle): Promise<void> {
  await handle.terminate().catch(() => undefined);
  await client.close().catch(() => undefined);
  await handle.dispose().catch(() => undefined);
}

function clientOptions({ protocol }: ToolServer, { onChange }: ConnectionDeps): ClientOptions {
  const changed = { autoRefresh: false, debounceMs: 0, onChanged: onChange };
  return {
    // The connection itself accepts no input requests. Each request declares those of its caller: see
    // `requestWithInput`.
    capabilities: {},
    versionNegotiation: {
      mode: protocol === '2025-11-25' ? 'legacy' : protocol === 'auto' ? 'auto' : { pin: protocol },
      probe: { timeoutMs: CONNECT_TIMEOUT_MS / 2 },
    },
    inputRequired: { autoFulfill: false },
    listChanged: { tools: changed, resources: changed, prompts: changed },
    listMaxPages: MAX_PAGES,
    // `Schemas` validates results with a time bound; the SDK's validator has none.
    jsonSchemaValidator: {
      getValidator<T>() {
        return (input: unknown) =>
          ({ valid: true, data: input, errorMessage: undefined }) as JsonSchemaValidatorResult<T>;
      },
    },
  };
}

function openTransport(server: ToolServer, deps: ConnectionDeps): Promise<TransportHandle> {
  return server.address.kind === 'http' ? openHttp(server, server.address, deps) : openProgram(server.address, deps);
}

async function openHttp(
  server: ToolServer,
  address: Extract<ToolServer['address'], { kind: 'http' }>,
  { clock }: ConnectionDeps,
): Promise<TransportHandle> {
  const { StreamableHTTPClientTransport } = await import('@modelcontextprotocol/client');
  const http = new BoundedHttp({ clock }, server);
  const transport = new StreamableHTTPClientTransport(new URL(address.url), {
    fetch: http.fetch,
    requestInit: { headers: { ...address.headers } },
    reconnectionScheduler: (reconnect, delayMs) => {
      return clock.after(Math.min(Math.max(delayMs, REOPEN_MS.least), REOPEN_MS.most), reconnect);
    },
  });
  const terminate = async () => {
    if (transport.sessionId) await Promise.race([transport.terminateSession(), sleep(clock, TERMINATE_TIMEOUT_MS)]);
  };
  return { transport, terminate, kill: () => void http.close(), dispose: () => http.close() };
}

async function openProgram(
  { command, args, env, cwd }: Extract<ToolServer['address'], { kind: 'stdio' }>,
  { logger }: ConnectionDeps,
): Promise<TransportHandle> {
  const { StdioClientTransport } = await import('@modelcontextprotocol/client/stdio');
  const transport = new StdioClientTransport({
    command,
    args: [...args],
    // The SDK adds PATH, HOME and similar variables, and no others of this process.
    env: { ...env },
    stderr: 'pipe',
    maxBufferSize: MAX_LINE_BYTES,
    ...(cwd === undefined ? {} : { cwd }),
  });
  transport.stderr?.on('data', (chunk: Buffer) => {
    logger.debug({ stderr: chunk.subarray(0, MAX_STDERR_CHARS).toString() }, 'upstream program wrote to stderr');
  });
  const kill = () => {
    const { pid } = transport;
    if (pid !== null) process.kill(pid, 'SIGKILL');
  };
  return { transport, terminate: () => Promise.resolve(), kill, dispose: () => Promise.resolve() };
}
