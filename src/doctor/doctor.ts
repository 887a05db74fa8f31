import { type Config, ConfigError, loadConfig } from '../config.ts';
import { createLogger } from '../lib/logger.ts';
import { checkAgents } from './agent-checks.ts';
import { checkAuthService } from './auth-service-checks.ts';
import { type Finding, findings, redactor } from './findings.ts';
import { checkIdentity } from './identity-checks.ts';
import { checkModels } from './model-checks.ts';
import { checkPorts } from './port-checks.ts';
import { checkRedis } from './redis-checks.ts';
import { checkToolServers } from './tool-server-checks.ts';

export interface DoctorOptions {
  /** A user's token to verify. */
  readonly token?: string | undefined;
}

export interface Report {
  /** Whether no check failed; warnings are allowed. */
  readonly ok: boolean;
  readonly findings: readonly Finding[];
}

type Environment = Readonly<Record<string, string | undefined>>;

/** Checks a deployment from its environment, without starting it. Sends requests, and changes nothing. */
export async function examine(env: Environment, { token }: DoctorOptions = {}): Promise<Report> {
  const found = await checkAll(env, token);
  const redact = redactor(env, token === undefined ? [] : [token, ...token.split('.')]);
  return {
    ok: found.every(({ status }) => status !== 'failed'),
    findings: found.map((finding) => ({ ...finding, detail: redact(finding.detail) })),
  };
}

async function checkAll(env: Environment, token: string | undefined): Promise<Finding[]> {
  const { ok, problem } = findings('configuration');
  let config: Config;
  try {
    config = loadConfig(env);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return error.problems.map(({ code, name, message }) => {
      return problem('failed', name, `${code}: ${message}`, adviceFor(code, name));
    });
  }
  const logger = createLogger('doctor', 'silent');
  const groups = await Promise.all([
    checkRedis(config, logger),
    checkAuthService(config, logger),
    checkIdentity(config, logger, token),
    checkModels(config, logger),
    checkAgents(config),
    checkToolServers(config, logger),
    checkPorts(config),
  ]);
  return [ok('variables', `valid for ${config.ENVIRONMENT}; the secrets are long enough`), ...groups.flat()];
}

function adviceFor(code: string, name: string): string {
  if (code === 'WEAK_SECRET') return `Generate ${name} with: openssl rand -base64 48`;
  return `Set ${name} as described in .env.example; the other checks need a valid configuration.`;
}

/** The report as lines of text. */
export function reportLines({ findings: found, ok }: Report): string[] {
  const marks = { ok: 'ok     ', warning: 'warning', failed: 'FAILED ' } as const;
  const lines = found.flatMap(({ area, check, status, detail, advice }) => {
    return [`${marks[status]} ${area}: ${check}: ${detail}`, ...(advice === undefined ? [] : [`        → ${advice}`])];
  });
  const count = (status: Finding['status']) => found.filter((finding) => finding.status === status).length;
  const verdict = ok ? 'Nothing prevents a start' : 'Something needs to be corrected';
  return [...lines, `${verdict}: ${count('failed')} failed, ${count('warning')} warnings, ${count('ok')} ok.`];
}
