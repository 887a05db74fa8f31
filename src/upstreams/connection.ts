import type { Client, ClientOptions, JsonSchemaValidatorResult, Transport } from '@modelcontextprotocol/client';
import packageFile from '../../package.json' with { type: 'json' };
import type { ToolServer } from '../catalogue/tool-servers.ts';
import { type Clock, sleep } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import { BoundedHttp } from './bounded-http.ts';
import { describe, UpstreamFault } from './faults.ts';
import { boundMessages, endUnanswered } from './messages.ts';
import { readLeniently } from './received.ts';
import type { OmittedRow } from './rows.ts';

/** Time within which a server of HTTP must answer the probe of `auto`; servers of older versions can ignore it. */
const HTTP_PROBE_MS = 5_000;
/**
 * Factor between the bound of a response and that of a line of a program. A line between the two fails one call; one
 * above ends the program, because the next message cannot be found.
 */
const LINE_FACTOR = 4;
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
  /** Called for each entry of a list that cannot be used, and for a list that was not read to its end. */
  readonly onOmitted: (row: OmittedRow) => void;
}

/** `legacy`: the versions that begin with `initialize`. */
export type Era = 'modern' | 'legacy';

/**
 * Connects a client to the server. With the protocol `auto`, a server whose answer to the probe is unusable is
 * connected by `initialize`: servers of older versions answer an unknown request in any way.
 * @param known era of the latest connection, if `auto` has detected it
 * @throws UpstreamFault when the server is unreachable or does not support MCP
 */
export async function connect(
  server: ToolServer,
  deps: ConnectionDeps,
  { signal, known }: { readonly signal: AbortSignal; readonly known?: Era | undefined },
): Promise<Connection> {
  if (server.protocol !== 'auto') return open(server, deps, server.protocol, signal);
  if (known === 'legacy') return open(server, deps, LATEST_LEGACY, signal);
  try {
    return await open(server, deps, 'auto', signal);
  } catch (probed) {
    signal.throwIfAborted();
    return await open(server, deps, LATEST_LEGACY, signal).catch((initialized: Error) => {
      const texts = [probed, initialized].map((error) => (error instanceof Error ? error.message : 'unknown'));
      throw new UpstreamFault('unreachable', `${texts[0]}; by initialize: ${texts[1]}`);
    });
  }
}

const LATEST_LEGACY = '2025-11-25';

async function open(
  server: ToolServer,
  deps: ConnectionDeps,
  protocol: ToolServer['protocol'],
  signal: AbortSignal,
): Promise<Connection> {
  // Loaded only if tool servers are configured.
  const { Client, SUPPORTED_PROTOCOL_VERSIONS, specTypeSchemas } = await import('@modelcontextprotocol/client');
  const info = { name: 'tollgate', title: 'Tollgate', version: packageFile.version };
  const client = new Client(info, clientOptions(server, deps, protocol, SUPPORTED_PROTOCOL_VERSIONS));
  client.onerror = (error) =>
    deps.logger.debug({ server: server.name, error: describe(error) }, 'upstream client reported an error');
  const handle = await openTransport(server, deps);
  readLeniently(handle.transport, { schemas: specTypeSchemas, server, onOmitted: deps.onOmitted });
  let closing: Promise<void> | undefined;
  const close = () => {
    closing ??= closeAll(client, handle);
    return closing;
  };
  let [connected, ended] = [false, false];
  // A failed attempt is not the end of a connection: `connect` may make another one.
  client.onclose = () => {
    ended = true;
    if (connected) deps.onClose();
  };
  try {
    const { startMs } = server;
    await client.connect(handle.transport, { timeout: startMs, maxTotalTimeout: startMs, signal });
  } catch (cause) {
    await close();
    throw new UpstreamFault('unreachable', `no connection: ${describe(cause)}`);
  }
  connected = true;
  if (ended) deps.onClose();
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

function clientOptions(
  { startMs, address }: ToolServer,
  { onChange }: ConnectionDeps,
  protocol: ToolServer['protocol'],
  versions: readonly string[],
): ClientOptions {
  const changed = { autoRefresh: false, debounceMs: 0, onChanged: onChange };
  const isLegacy = protocol !== 'auto' && protocol !== '2026-07-28';
  return {
    // The first one is offered. The dates of the versions are in the order of time.
    ...(isLegacy ? { supportedProtocolVersions: versions.filter((version) => version <= protocol) } : {}),
    // The connection itself accepts no input requests. Each request declares those of its caller: see
    // `requestWithInput`.
    capabilities: {},
    versionNegotiation: {
      mode: isLegacy ? 'legacy' : protocol === 'auto' ? 'auto' : { pin: protocol },
      // A program that is starting is as silent as one that ignores the probe.
      probe: { timeoutMs: address.kind === 'http' ? Math.min(HTTP_PROBE_MS, startMs / 2) : startMs / 2 },
    },
    inputRequired: { autoFulfill: false },
    listChanged: { tools: changed, resources: changed, prompts: changed },
    // `readLeniently` ends a list after its last page.
    listMaxPages: 0,
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
  const { address, responseBytes } = server;
  return address.kind === 'http' ? openHttp(server, address, deps) : openProgram(address, responseBytes, deps);
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
  responseBytes: number,
  { logger }: ConnectionDeps,
): Promise<TransportHandle> {
  const { StdioClientTransport } = await import('@modelcontextprotocol/client/stdio');
  const transport = new StdioClientTransport({
    command,
    args: [...args],
    // The SDK adds PATH, HOME and similar variables, and no others of this process.
    env: { ...env },
    stderr: 'pipe',
    maxBufferSize: responseBytes * LINE_FACTOR,
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
