import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { ServiceIdentity } from '../auth/tokens.ts';
import { httpError } from '../http/app.ts';
import { isObject } from '../lib/json.ts';
import type { Logger } from '../lib/logger.ts';
import type { AuditEntry, AuditLog } from './audit-log.ts';

const MAX_TARGET_LENGTH = 256;
const MAX_USER_AGENT_LENGTH = 200;
/** Parts of a request that name the object of an action. Other fields can contain anything and are never entered. */
const TARGET_FIELDS = [
  'user_id',
  'connection',
  'run_id',
  'node_id',
  'consumer',
  'plan',
  'jti',
  'sid',
  'before',
  'record_id',
  'type',
];
/** Reads that are entered: the data of a user leave the deployment. */
const ENTERED_READS = new Set(['exportUserData']);
/** What billing systems do with each page of the feed. */
const DATA_OF_SERVICES = new Set(['confirmUsageCursor']);
/** Events that services publish; entered only for operators. */
const PUBLISH = 'publishEvent';

export interface AuditHooksDeps {
  readonly auditLog: Pick<AuditLog, 'write'>;
  readonly callerOf: (request: FastifyRequest) => ServiceIdentity | undefined;
  readonly addressOf: (request: FastifyRequest) => string;
  readonly nodeId: string;
  readonly logger: Logger;
}

/**
 * Enters each admin action into the audit log before its response is sent, also a failed or refused one. If the log
 * cannot be written, the entry goes to the log of the process, and the response is not held back: the action has
 * already taken effect.
 */
export function auditAdminActions(app: FastifyInstance, deps: AuditHooksDeps): void {
  const errors = new WeakMap<FastifyRequest, string>();
  app.addHook('onError', async (request, _reply, error) => {
    errors.set(request, httpError(error).code);
  });
  app.addHook('onSend', async (request, reply, payload) => {
    const caller = deps.callerOf(request);
    const action = actionOf(request);
    if (!caller || action === undefined || !isEntered(request, action, caller)) return payload;
    const entry: AuditEntry = {
      actor: caller.serviceId,
      action,
      target: targetOf(request),
      from: deps.addressOf(request),
      user_agent: request.headers['user-agent']?.slice(0, MAX_USER_AGENT_LENGTH) ?? null,
      status: reply.statusCode,
      error: errors.get(request) ?? null,
      node_id: deps.nodeId,
    };
    await deps.auditLog.write(entry).catch((error: unknown) => {
      const { target: _ids, ...logged } = entry;
      deps.logger.error({ err: error, entry: logged }, 'an entry of the audit log could not be written');
    });
    return payload;
  });
}

function actionOf({ routeOptions }: FastifyRequest): string | undefined {
  const { operationId } = (routeOptions.schema ?? {}) as { readonly operationId?: string };
  return operationId;
}

function isEntered({ method }: FastifyRequest, action: string, { operator }: ServiceIdentity): boolean {
  if (method === 'GET' || method === 'HEAD') return ENTERED_READS.has(action);
  if (action === PUBLISH) return operator !== undefined;
  return !DATA_OF_SERVICES.has(action);
}

function targetOf({ params, body, routeOptions }: FastifyRequest): Record<string, string> {
  const { id, ...named } = (params ?? {}) as Record<string, unknown>;
  // In the paths of users, `id` is the user.
  const owner =
    routeOptions.url?.startsWith('/v1/users/') || routeOptions.url?.includes('/users/:id') ? 'user_id' : 'id';
  const fields = { ...(isObject(body) ? body : {}), ...named, ...(id === undefined ? {} : { [owner]: id }) };
  const found = [...TARGET_FIELDS, 'id'].flatMap((name): [string, string][] => {
    const value = (fields as Record<string, unknown>)[name];
    return typeof value === 'string' ? [[name, value.slice(0, MAX_TARGET_LENGTH)]] : [];
  });
  return Object.fromEntries(found);
}
