import { describe, expect, it } from '@jest/globals';
import { changesBetween } from '../../src/admin/catalogue-view.ts';
import { describeSettings } from '../../src/admin/settings.ts';
import { loadConfig, VARIABLE_NAMES } from '../../src/config.ts';

const SECRET = 'Hunter2-hunter2-hunter2-hunter2-hunter2';
const ENVIRONMENT = {
  ENVIRONMENT: 'test',
  JWT_SECRET_KEY: `${SECRET}-a`,
  JWT_SECRET_KEY_PREVIOUS: `${SECRET}-b`,
  SERVICE_SECRET: `${SECRET}-c`,
  DEMO_PASSWORD: `${SECRET}-d`,
  AGENT_MODEL_URL: `https://user:${SECRET}@model.example.com/v1?key=${SECRET}`,
  AGENT_MODEL_NAME: 'large',
  AGENT_MODEL_KEY: `${SECRET}-e`,
  REDIS_URL: `redis+sentinel://user:${SECRET}@one:26379/main`,
  REDIS_SENTINEL_PASSWORD: `${SECRET}-f`,
  USAGE_ARCHIVE_URL: `postgres://user:${SECRET}@db/usage`,
  AUTH_SERVICE_URL: `https://user:${SECRET}@auth.example.com/base`,
  OTEL_EXPORTER_OTLP_ENDPOINT: `https://user:${SECRET}@collector.example.com`,
  OTEL_RESOURCE_ATTRIBUTES: `token=${SECRET}`,
  CONSOLE_PROMETHEUS_URL: `https://user:${SECRET}@prometheus.example.com`,
};

describe('the settings of the console', () => {
  it('have every variable, and no secret in any of them', () => {
    const settings = describeSettings(loadConfig(ENVIRONMENT), VARIABLE_NAMES);
    expect(settings.map(({ name }) => name)).toEqual(VARIABLE_NAMES);
    expect(JSON.stringify(settings)).not.toContain('unter2');
    const named = (name: string) => settings.find((one) => one.name === name);
    expect(named('PORT')).toEqual({ name: 'PORT', value: '8000', source: 'default', secret: false });
    expect(named('SERVICE_SECRET')).toEqual({
      name: 'SERVICE_SECRET',
      value: null,
      source: 'environment',
      secret: true,
    });
    expect(named('AUTH_SERVICE_URL')?.value).toBe('https://auth.example.com/base');
    expect(named('REDIS_URL')?.value).toBe('redis+sentinel://one:26379/main');
  });

  it('hide a variable that is not known to be public', () => {
    const [unknown] = describeSettings(loadConfig({ ...ENVIRONMENT, NEW_VARIABLE: SECRET }), ['NEW_VARIABLE']);
    expect(unknown).toEqual({ name: 'NEW_VARIABLE', value: null, source: 'environment', secret: true });
  });
});

describe('the diff of two catalogues', () => {
  it('names each member that differs by its path', () => {
    const before = { plans: { free: { threads: 5, rank: 0 }, old: { rank: 9 } }, tools: {} };
    const after = { plans: { free: { threads: 10, rank: 0 } }, tools: { new_tool: { units: 1 } } };
    expect(changesBetween(before, after)).toEqual([
      { path: 'plans.free.threads', kind: 'changed', before: 5, after: 10 },
      { path: 'plans.old', kind: 'removed', before: { rank: 9 }, after: null },
      { path: 'tools.new_tool', kind: 'added', before: null, after: { units: 1 } },
    ]);
    expect(changesBetween(before, structuredClone(before))).toEqual([]);
  });
});
