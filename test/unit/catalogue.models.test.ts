import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from '@jest/globals';
import { Models } from '../../src/agents/model/models.ts';
import { loadAgentCatalogue } from '../../src/catalogue/agent-catalogue.ts';
import { DEFAULT_SETTINGS, ModelRow, PRESETS, settingsOf } from '../../src/catalogue/model-settings.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { createLogger } from '../../src/lib/logger.ts';
import { NO_TRACING } from '../../src/lib/tracing.ts';

const folders: string[] = [];
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
});

function load(models: object) {
  const folder = mkdtempSync(join(tmpdir(), 'agents-'));
  folders.push(folder);
  const agents = [{ name: 'a', description: 'd', tools: ['t'] }];
  writeFileSync(join(folder, 'agents.json'), JSON.stringify({ default: 'a', agents, models }));
  return loadAgentCatalogue(folder);
}

const ENVIRONMENT: Readonly<Record<string, string>> = { MY_KEY: 'sk-mine' };
function model(row: object, { production = false, url = 'http://127.0.0.1:1/v1' } = {}) {
  const logger = createLogger('test', 'silent');
  const deps = { clock: systemClock, tracing: NO_TRACING, logger };
  const endpoint = { url, key: 'sk-deployment' };
  const variable = (name: string) => ENVIRONMENT[name];
  return new Models(deps, load({ m: row }), { endpoint, variable, production }).get('m');
}
const reference = (name: string) => `\${${name}}`;
const addresses = (row: object) => model(row)?.endpoints.map(({ address }) => address);

describe('the models of agents.json', () => {
  it('have the settings of the nearest row: endpoint, model, presets, default', () => {
    const row = ModelRow.parse({
      preset: 'llama.cpp',
      attempts: 2,
      endpoints: [
        { url: 'http://a', preset: 'mistral', attempts: 3 },
        { url: 'http://b', silence_seconds: 5 },
      ],
    });
    const [first, second] = row.endpoints ?? [];
    expect(settingsOf(row, first)).toMatchObject({ attempts: 3, stream_options: false, silence_seconds: 20 });
    expect(settingsOf(row, second)).toMatchObject({ attempts: 2, stream_options: true, silence_seconds: 5 });
    expect(settingsOf({})).toEqual(DEFAULT_SETTINGS);
  });

  it('use the row * when they have none of their own', () => {
    const catalogue = load({ '*': { attempts: 1 }, m: { attempts: 2 } });
    expect([catalogue.model('m').attempts, catalogue.model('other').attempts]).toEqual([2, 1]);
    expect(catalogue.models).toEqual(['m']);
  });

  it('send the key of the deployment to the address of the deployment only', () => {
    expect(addresses({})).toMatchObject([{ name: 'm', headers: { authorization: 'Bearer sk-deployment' } }]);
    const [own, none] =
      addresses({ endpoints: [{ url: 'http://a', key: reference('MY_KEY'), model: 'n' }, { url: 'http://b' }] }) ?? [];
    expect(own).toMatchObject({ name: 'm#1', model: 'n', headers: { authorization: 'Bearer sk-mine' } });
    expect(none?.headers).toEqual({});
    expect(
      addresses({ preset: 'azure-openai', endpoints: [{ url: 'http://a', key: reference('MY_KEY') }] }),
    ).toMatchObject([{ headers: { 'api-key': 'sk-mine' } }]);
  });

  it.each([
    ['a variable that is not set', { key: reference('NOT_SET') }, 'm: key: NOT_SET is not set in the environment'],
    ['a key in the file', { key: 'sk-1' }, 'm: key must refer to an environment variable'],
    [
      'a variable of Tollgate',
      { key: reference('JWT_SECRET_KEY') },
      'm: key: JWT_SECRET_KEY is a variable of Tollgate',
    ],
    [
      'a secret in the file',
      { headers: { 'X-Api-Key': 'sk-1' } },
      'm: X-Api-Key must refer to an environment variable',
    ],
    ['an address that is none', { url: 'ftp://a' }, 'm: url: Invalid URL'],
  ])('are refused for %s, without its value', (_label, endpoint, text) => {
    const work = () => model({ endpoints: [{ url: 'http://a', ...endpoint }] });
    expect(work).toThrow(text);
    expect(work).not.toThrow(/sk-1/);
  });

  it('are not reached by plain http at a public host in production', () => {
    expect(() => model({ endpoints: [{ url: 'http://models.example.com/v1' }] }, { production: true })).toThrow(
      'plain http',
    );
  });

  it.each([
    { temperature: 'hot' },
    { attempts: 0 },
    { preset: 'gpt' },
    { unknown: 1 },
    { extra_body: { messages: [] } },
    { endpoints: [] },
    { endpoints: [{}] },
    { endpoints: [{ url: 'http://a', weight: -1 }] },
  ])('are refused with the field that is wrong: %j', (row) => {
    expect(() => load({ m: row })).toThrow(/models\.m/);
  });
});

describe('docs/models.md', () => {
  const page = readFileSync(new URL('../../docs/models.md', import.meta.url), 'utf8');

  it('has every setting and every preset', () => {
    const settings = Object.keys(ModelRow.shape).filter((name) => name !== 'endpoints');
    expect(settings.filter((name) => !new RegExp(`^\\|[^|]*\`${name}\``, 'm').test(page))).toEqual([]);
    expect(Object.keys(PRESETS).filter((name) => !page.includes(`\`${name}\``))).toEqual([]);
  });

  it('has an example that is accepted', () => {
    const [, example = ''] = /```json\n([^`]+)```/.exec(page) ?? [];
    const { models } = JSON.parse(example) as { models: object };
    expect(load(models).models).toEqual(['qwen3']);
  });

  it('has the default of every setting', () => {
    const rows = [...page.matchAll(/^\| `(\w+)` \| ([^|]+) \|/gm)].map(
      ([, name = '', value = '']) => [name, value] as const,
    );
    const documented = rows.filter(([name]) => name in DEFAULT_SETTINGS);
    const numbers = documented.filter(([name]) => typeof Reflect.get(DEFAULT_SETTINGS, name) === 'number');
    expect(numbers.length).toBeGreaterThan(12);
    for (const [name, value] of numbers) {
      expect([name, Number(value.replaceAll(',', ''))]).toEqual([name, Reflect.get(DEFAULT_SETTINGS, name)]);
    }
  });
});
