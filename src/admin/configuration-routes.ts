import type { FastifyInstance } from 'fastify';
import type { AgentCatalogue } from '../catalogue/agent-catalogue.ts';
import type { Catalogues } from '../catalogue/catalogues.ts';
import type { Permissions } from '../catalogue/permissions.ts';
import { type Config, VARIABLE_NAMES } from '../config.ts';
import type { ConsoleSignIn } from '../http/console-sign-in.ts';
import type { Readiness } from '../http/readiness.ts';
import { typedRoutes } from '../http/route-docs.ts';
import type { IdentifyService } from '../http/services.ts';
import type { ToolServerReport } from '../http/tool-server-routes.ts';
import { ACTION_ERRORS, ACTS, READ_ERRORS, READS, requires } from './admin-guard.ts';
import {
  changesBetween,
  describeAgent,
  describeContents,
  describePlan,
  describeTool,
  matrixOf,
} from './catalogue-view.ts';
import { CatalogueBody, ChecksBody, DiffBody, SettingsBody } from './configuration-schemas.ts';
import { describeSettings } from './settings.ts';

export interface ConfigurationRoutesDeps {
  readonly identifyService: IdentifyService;
  readonly config: Config;
  readonly catalogues: Catalogues;
  readonly agents: AgentCatalogue;
  readonly permissions: Pick<Permissions, 'decide'>;
  readonly toolServers: () => readonly ToolServerReport[];
  readonly readiness: Pick<Readiness, 'check'>;
  readonly signIn: Pick<ConsoleSignIn, 'endpoints'>;
  readonly endpoints: readonly { readonly path: string; readonly description: string }[];
}

/** Registers the routes about catalogues and settings. */
export function registerConfigurationRoutes(app: FastifyInstance, deps: ConfigurationRoutesDeps): void {
  catalogueRoutes(app, deps);
  settingsRoutes(app, deps);
}

function catalogueRoutes(app: FastifyInstance, deps: ConfigurationRoutesDeps): void {
  const { identifyService, catalogues, agents, permissions, toolServers } = deps;
  const routes = typedRoutes(app);
  routes.get(
    '/v1/admin/catalogue',
    {
      ...requires(identifyService, 'admin:read'),
      schema: {
        ...READS,
        operationId: 'getCatalogue',
        summary: 'Get plans, permissions, tools and agents',
        description: 'The catalogues that this node uses, without addresses and headers of other servers.',
        'x-errors': READ_ERRORS,
        response: { 200: CatalogueBody },
      },
    },
    async () => {
      const { plans, tools, version, contents } = catalogues;
      return {
        version,
        plans: plans.all.map(describePlan),
        permissions: [...contents.tools.permissions.values()].map((permission) => ({ ...permission })),
        tools: tools.all.map(describeTool),
        agents: agents.all.map(describeAgent),
        tool_servers: toolServers().map((server) => ({ ...server })),
        matrix: matrixOf(plans.all, tools.all, permissions),
      };
    },
  );
  routes.get(
    '/v1/admin/catalogue/diff',
    {
      ...requires(identifyService, 'admin:read'),
      schema: {
        ...READS,
        operationId: 'diffCatalogue',
        summary: 'Preview a reload',
        description: 'Reads the catalogue files of this node and compares them with those in use. Changes nothing.',
        'x-errors': READ_ERRORS,
        response: { 200: DiffBody },
      },
    },
    async () => {
      const { version } = catalogues;
      const preview = catalogues.preview();
      if ('mistakes' in preview) {
        return { version, next_version: null, valid: false, mistakes: [...preview.mistakes], changes: [] };
      }
      const changes = changesBetween(describeContents(catalogues.contents), describeContents(preview));
      return { version, next_version: preview.version, valid: true, mistakes: [], changes };
    },
  );
}

function settingsRoutes(app: FastifyInstance, deps: ConfigurationRoutesDeps): void {
  const { identifyService, config, endpoints } = deps;
  const routes = typedRoutes(app);
  routes.get(
    '/v1/admin/settings',
    {
      ...requires(identifyService, 'admin:read'),
      schema: {
        ...READS,
        operationId: 'getSettings',
        summary: 'Get the effective configuration',
        description: 'The variables of this node. Only variables that are known to be public have a value.',
        'x-errors': READ_ERRORS,
        response: { 200: SettingsBody },
      },
    },
    async () => ({ settings: describeSettings(config, VARIABLE_NAMES), endpoints: [...endpoints] }),
  );
  routes.post(
    '/v1/admin/settings/test',
    {
      ...requires(identifyService, 'admin'),
      schema: {
        ...ACTS,
        operationId: 'testConnections',
        summary: 'Test the connections of this node',
        description:
          'Checks Redis, the auth service, the keys of the identity providers, the sign-in and the tool servers.',
        'x-errors': ACTION_ERRORS,
        response: { 200: ChecksBody },
      },
    },
    async () => ({ checks: await check(deps) }),
  );
}

async function check({ readiness, signIn, toolServers }: ConfigurationRoutesDeps) {
  const startedAt = performance.now();
  const elapsed = () => Math.round(performance.now() - startedAt);
  const [ready, endpoints] = await Promise.all([
    readiness.check().then((checks) => ({ ...checks, ms: elapsed() })),
    signIn.endpoints().then((found) => ({ ...found, ms: elapsed() })),
  ]);
  const { ms, withoutKeys } = ready;
  const result = (name: string, ok: boolean, detail: string, took = ms) => ({ name, ok, ms: took, detail });
  return [
    result('redis', ready.redis, ready.redis ? 'answers' : 'does not answer in time'),
    result('auth_service', ready.authService, ready.authService ? 'answers' : 'does not answer in time'),
    result(
      'identity_keys',
      ready.identityKeys,
      withoutKeys.length === 0 ? 'known' : `none of: ${withoutKeys.join(', ')}`,
    ),
    result(
      'console_sign_in',
      endpoints.authorization !== null,
      endpoints.authorization ?? 'the issuer has no authorization endpoint, or does not answer',
      endpoints.ms,
    ),
    ...toolServers().map(({ name, state, problem }) => {
      return result(`tool_server:${name}`, state === 'ready', problem ?? state, 0);
    }),
  ];
}
