import { Catalogues, catalogueSources } from '../catalogue/catalogues.ts';
import type { ToolServer } from '../catalogue/tool-servers.ts';
import type { Config } from '../config.ts';
import { systemClock } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import { BUILT_IN_TOOLS } from '../tools/executors.ts';
import { NO_CAPABILITIES, readCapabilities, type UpstreamCapabilities } from '../upstreams/capabilities.ts';
import { type Connection, connect } from '../upstreams/connection.ts';
import type { ListMethod, OmittedRow } from '../upstreams/rows.ts';
import { Schemas } from '../upstreams/schemas.ts';
import { type Finding, findings, reasonOf } from './findings.ts';

/** Bound of the rows that are kept while the lists are received. */
const MAX_OMITTED = 500;
const KINDS: Readonly<Record<ListMethod, string>> = {
  'tools/list': 'tool',
  'resources/list': 'resource',
  'resources/templates/list': 'resource template',
  'prompts/list': 'prompt',
};
const ignore = () => {};

/** Reads plans, tools and tool servers, then connects to each server and reads its lists, as a gateway does. */
export async function checkToolServers(config: Config, logger: Logger): Promise<Finding[]> {
  const { ok, problem } = findings('catalogues');
  let catalogues: Catalogues;
  try {
    catalogues = new Catalogues(catalogueSources(config.CATALOGUE_DIR, config.TOOL_SERVERS), {
      builtInTools: BUILT_IN_TOOLS,
      variable: config.variable,
      production: config.ENVIRONMENT === 'production',
      longestMs: config.TOOL_TIMEOUT_SECONDS * 1000,
    });
  } catch (error) {
    return [
      problem('failed', 'files', reasonOf(error), 'Correct the named fields; the process does not start before.'),
    ];
  }
  const { servers } = catalogues;
  const found = await Promise.all(servers.map((server) => checkServer(server, logger)));
  return [ok('files', `valid, with ${servers.length} tool servers`), ...found.flat()];
}

async function checkServer(server: ToolServer, logger: Logger): Promise<Finding[]> {
  const { problem } = findings(`tool server ${server.name}`);
  let received: OmittedRow[] = [];
  const onOmitted = (row: OmittedRow) => {
    if (received.length < MAX_OMITTED) received.push(row);
  };
  const deps = { clock: systemClock, logger, onChange: ignore, onFlood: ignore, onClose: ignore, onOmitted };
  try {
    // With the protocol `auto` a second attempt may follow the first.
    const connection = await connect(server, deps, { signal: AbortSignal.timeout(2 * server.startMs) });
    try {
      const read = await readAll(connection, server, {
        begin: () => {
          received = [];
        },
        received: () => received,
      });
      return findingsOf(server, read);
    } finally {
      await connection.close();
    }
  } catch (error) {
    const advice =
      server.address.kind === 'http'
        ? 'Check that the server runs, its URL, and the headers that it needs.'
        : 'Run its command by hand: it must exist on this host and write nothing but JSON-RPC to standard output.';
    return [problem('failed', 'list', reasonOf(error), advice)];
  }
}

interface Receiving {
  /** Called before each reading. */
  readonly begin: () => void;
  readonly received: () => readonly OmittedRow[];
}

/** Reads the lists again while schemas are left for the next reading. Their number bounds the readings. */
async function readAll(
  { client }: Connection,
  server: ToolServer,
  { begin, received }: Receiving,
): Promise<UpstreamCapabilities> {
  const schemas = new Schemas();
  let before = NO_CAPABILITIES;
  for (;;) {
    begin();
    const reading = { server, before, options: { timeout: server.timeoutMs } };
    const read = await readCapabilities(client, reading, { schemas, received });
    if (read.complete || read.late === before.late) return read;
    before = read;
  }
}

function findingsOf(
  server: ToolServer,
  { tools, resources, prompts, omitted, complete }: UpstreamCapabilities,
): Finding[] {
  const { ok, problem } = findings(`tool server ${server.name}`);
  const counts = [
    `${tools.size} usable tools`,
    ...(server.resources ? [`${resources.length} resources`] : []),
    ...(server.prompts ? [`${prompts.length} prompts`] : []),
  ];
  const leftOut = omitted.map(({ list, name, reason }) => {
    const advice = 'It is not offered. Ask the author of the server to correct it.';
    return problem('warning', name === '' ? list : `${KINDS[list]} ${name}`, reason, advice);
  });
  const listed = new Set(omitted.filter(({ list }) => list === 'tools/list').map(({ name }) => name));
  // A list that could not be read shows nothing about its entries.
  const missing = complete ? [...server.tools].filter((name) => !tools.has(name) && !listed.has(name)) : [];
  const advice = 'Correct the name in the file of TOOL_SERVERS, or remove it.';
  return [
    ok('list', counts.join(', ')),
    ...leftOut,
    ...missing.map((name) => problem('warning', `tool ${name}`, 'the server does not list it', advice)),
  ];
}
