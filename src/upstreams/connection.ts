import type { Client, ClientOptions, JsonSchemaValidatorResult, Transport } from '@modelcontextprotocol/client';
import packageFile from '../../package.json' with { type: 'json' };
import type { ToolServer } from '../catalogue/tool-servers.ts';
import { type Clock, sleep } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import { BoundedHttp } from './bounded-http.ts';
import { describe, UpstreamFault } from './faults.ts';
import { boundMessages, endUnanswered } from './messages.ts';

/** To say which protocol is spoken, and to initialize. */
const CONNECT_TIMEOUT_MS = 10_000;
/** One message of a program; its results are cut at 64 KiB. */
const MAX_LINE_BYTES = 1024 * 1024;
/** Pages of a list. */
const MAX_PAGES = 16;
/** Of what a program writes to stderr, to the log at debug level. */
const MAX_STDERR_CHARS = 1_000;
/** A stream that a server ends is not opened again sooner or later than this, whatever the server asks for. */
const REOPEN_MS = { least: 1_000, most: 60_000 };
/** A session is given back while the connection closes; nobody waits longer for that. */
const TERMINATE_TIMEOUT_MS = 500;

export interface Connection {
  readonly client: Client;
  /** Idempotent; what is under way fails. */
  close(): Promise<void>;
}

export interface ConnectionDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  /** The server says that a list has changed. */
  readonly onChange: () => void;
  readonly onFlood: () => void;
  /** The connection has ended. */
  readonly onClose: () => void;
}

/** A connected client of the server. @throws UpstreamFault when there is nobody, or nobody who speaks MCP */
export async function connect(server: ToolServer, deps: ConnectionDeps, signal: AbortSignal): Promise<Connection> {
  // Loaded only where servers are configured.
  const { Client } = await import('@modelcontextprotocol/client');
  const info = { name: 'tollgate', title: 'Tollgate', version: packageFile.version };
  const client = new Client(info, clientOptions(server, deps));
  client.onerror = (error) => deps.logger.debug({ server: server.name, error: describe(error) }, 'upstream');
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
  // Who does not hear of changes any more connects anew, with the next request.
  void client.autoOpenedSubscription?.closed.then((how) => how !== 'local' && deps.onClose());
  if (server.address.kind === 'http') endUnanswered(handle.transport);
  boundMessages(handle.transport, deps.clock, () => {
    deps.onFlood();
    handle.kill();
    void close();
  });
  return { client, close };
}

/** The way to a server, and what is to be given back with it. */
interface TransportHandle {
  readonly transport: Transport;
  /** Before the client is closed. */
  readonly terminate: () => Promise<unknown>;
  /** Without a word: for one that does not stop. */
  readonly kill: () => void;
  /** After it. */
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
    // Nobody can be asked by way of the connection. What one caller can be asked is said with its request: see `requestWithInput`.
    capabilities: {},
    versionNegotiation: {
      mode: protocol === '2025-11-25' ? 'legacy' : protocol === 'auto' ? 'auto' : { pin: protocol },
      probe: { timeoutMs: CONNECT_TIMEOUT_MS / 2 },
    },
    inputRequired: { autoFulfill: false },
    listChanged: { tools: changed, resources: changed, prompts: changed },
    listMaxPages: MAX_PAGES,
    // Results are checked where the time that it takes is bounded: see Schemas.
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
    // The SDK adds PATH, HOME and their like, and nothing else of this process's.
    env: { ...env },
    stderr: 'pipe',
    maxBufferSize: MAX_LINE_BYTES,
    ...(cwd === undefined ? {} : { cwd }),
  });
  transport.stderr?.on('data', (chunk: Buffer) => {
    logger.debug({ stderr: chunk.subarray(0, MAX_STDERR_CHARS).toString() }, 'an upstream program');
  });
  const kill = () => {
    const { pid } = transport;
    if (pid !== null) process.kill(pid, 'SIGKILL');
  };
  return { transport, terminate: () => Promise.resolve(), kill, dispose: () => Promise.resolve() };
}
