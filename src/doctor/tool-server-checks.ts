import { Catalogues, catalogueSources } from '../catalogue/catalogues.ts';
import type { ToolServer } from '../catalogue/tool-servers.ts';
import type { Config } from '../config.ts';
import { systemClock } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import { BUILT_IN_TOOLS } from '../tools/executors.ts';
import { NO_CAPABILITIES, readCapabilities } from '../upstreams/capabilities.ts';
import { connect } from '../upstreams/connection.ts';
import { Schemas } from '../upstreams/schemas.ts';
import { type Finding, findings, reasonOf } from './findings.ts';

const LIST_TIMEOUT_MS = 10_000;
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
  const { ok, problem } = findings(`tool server ${server.name}`);
  const deps = { clock: systemClock, logger, onChange: ignore, onFlood: ignore, onClose: ignore };
  const omitted: Finding[] = [];
  const onOmitted = (tool: string, reason: string) => {
    const advice = 'The tool is not offered. Ask the author of the server to correct its schema.';
    omitted.push(problem('warning', `tool ${tool}`, reason, advice));
  };
  try {
    const connection = await connect(server, deps, AbortSignal.timeout(LIST_TIMEOUT_MS));
    try {
      const reading = { server, before: NO_CAPABILITIES, options: { timeout: LIST_TIMEOUT_MS } };
      const { tools } = await readCapabilities(connection.client, reading, { schemas: new Schemas(), onOmitted });
      const missing = [...server.tools.keys()].filter((name) => {
        return !tools.has(name) && !omitted.some(({ check }) => check === `tool ${name}`);
      });
      const advice = 'Correct the name in the file of TOOL_SERVERS, or remove it.';
      return [
        ok('list', `${tools.size} usable tools`),
        ...omitted,
        ...missing.map((name) => problem('warning', `tool ${name}`, 'the server does not list it', advice)),
      ];
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
