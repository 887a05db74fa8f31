import { dirname } from 'node:path';
import { describe, expect, it } from '@jest/globals';
import { freePort } from '../../scripts/lib/ports.ts';
import { examine, jsonFile } from '../support/doctor.ts';
import { ModelServer, type Script } from '../support/model-server.ts';
import { closeAfter } from '../support/open-resources.ts';

const works: Script = ({ body }) => (body.tools ? { calls: [{ name: 'tollgate_doctor' }] } : { text: ['ready'] });

/** A reference to a variable, as agents.json has it. */
const reference = (name: string) => `\${${name}}`;

async function startModel(script: Script = works): Promise<ModelServer> {
  const model = await ModelServer.start(script);
  closeAfter('test', () => model.close());
  return model;
}

/** Writes agents.json with these rows of `models`. @returns the variable that names its folder */
function catalogue(models: object, agent: object = {}): { readonly CATALOGUE_DIR: string } {
  const agents = [{ name: 'one', description: 'Answers.', tools: ['web_search'], ...agent }];
  return { CATALOGUE_DIR: dirname(jsonFile('agents.json', { default: 'one', agents, models })) };
}

describe('the doctor, for models', () => {
  it('names a model that refuses the key, and never prints the key', async () => {
    const model = await ModelServer.start(() => ({ status: 401 }));
    closeAfter('test', () => model.close());
    const key = 'sk-abcdefghijklmnop';
    const env = { AGENT_MODEL_URL: model.url, AGENT_MODEL_NAME: 'm', AGENT_MODEL_KEY: key };
    const { code, found, failed, output } = await examine(env);
    expect([failed, code]).toEqual([['model m: reply'], 1]);
    expect(found.get('model m: reply')).toMatchObject({ advice: expect.stringContaining('AGENT_MODEL_KEY') });
    expect(output).not.toContain(key);
  });

  it('warns about a model that calls no tool', async () => {
    const model = await ModelServer.start(() => ({ text: ['I cannot.'] }));
    closeAfter('test', () => model.close());
    const { code, found } = await examine({ AGENT_MODEL_URL: model.url, AGENT_MODEL_NAME: 'm' });
    expect(found.get('model m: tool call')).toMatchObject({ status: 'warning' });
    expect(code).toBe(0);
  });

  it('requests one token and one tool call of every endpoint, each with its own key and settings', async () => {
    const [first, second, plain] = [await startModel(), await startModel(), await startModel()];
    const endpoints = [
      { url: first.url, key: reference('FIRST_KEY') },
      { url: second.url, key: reference('SECOND_KEY'), model: 'vendor/two', preset: 'openai', weight: 0 },
    ];
    const { found, output, failed } = await examine({
      ...catalogue({ two: { endpoints }, '*': { temperature: 0.5 } }, { model: 'plain' }),
      AGENT_MODEL_URL: plain.url,
      AGENT_MODEL_NAME: 'fallback',
      FIRST_KEY: 'key-of-the-first',
      SECOND_KEY: 'key-of-the-second',
    });
    expect(failed.filter((name) => name.startsWith('model'))).toEqual([]);
    for (const name of ['two#1', 'two#2', 'plain', 'fallback']) {
      expect(found.get(`model ${name}: tool call`)).toMatchObject({ status: 'ok' });
    }
    const sent = ({ requests }: ModelServer) => {
      return requests.map(({ authorization, body: { model, max_tokens, max_completion_tokens, temperature } }) => {
        return { authorization, model, bound: max_tokens ?? `${max_completion_tokens} completion`, temperature };
      });
    };
    const [a, b] = [
      { authorization: 'Bearer key-of-the-first', model: 'two' },
      { authorization: 'Bearer key-of-the-second', model: 'vendor/two' },
    ];
    expect(sent(first)).toMatchObject([
      { ...a, bound: 1 },
      { ...a, bound: 512 },
    ]);
    expect(sent(second)).toMatchObject([
      { ...b, bound: '1 completion' },
      { ...b, bound: '512 completion' },
    ]);
    expect(sent(plain).map(({ temperature }) => temperature)).toEqual([0.5, 0.5, 0.5, 0.5]);
    for (const key of ['key-of-the-first', 'key-of-the-second']) expect(output).not.toContain(key);
  });

  it('names the one endpoint of several that fails, and the field with its key', async () => {
    const [good, refusing] = [await startModel(), await startModel(() => ({ status: 401 }))];
    const down = { url: `http://127.0.0.1:${await freePort()}/v1` };
    const endpoints = [{ url: good.url }, { url: refusing.url }, down];
    const { code, found, failed } = await examine(catalogue({ m: { endpoints } }, { model: 'm' }));
    expect(failed.filter((name) => name.startsWith('model')).sort()).toEqual(['model m#2: reply', 'model m#3: reply']);
    expect(found.get('model m#2: reply')).toMatchObject({
      detail: expect.stringMatching(/^authentication: .* 401/),
      advice: expect.stringContaining('key of the endpoint in agents.json'),
    });
    expect(found.get('model m#3: reply')?.detail).toMatch(/^unreachable/);
    expect(found.get('model m#1: tool call')).toMatchObject({ status: 'ok' });
    expect(code).toBe(1);
  });

  it('counts a reply that the bound of one token ends or refuses as a reply', async () => {
    const bound = ({ body }: Parameters<Script>[0]) => body.max_tokens;
    const cut = await startModel((request, at) => {
      const end = { choices: [{ index: 0, delta: { content: '' }, finish_reason: 'length' }] };
      return bound(request) === 1 ? { stream: [end, 'data: [DONE]\n\n'] } : works(request, at);
    });
    const refusing = await startModel((request, at) => (bound(request) === 1 ? { status: 400 } : works(request, at)));
    const endpoints = [{ url: cut.url }, { url: refusing.url }];
    const { found } = await examine(catalogue({ m: { endpoints } }));
    for (const name of ['m#1', 'm#2']) {
      expect(found.get(`model ${name}: reply`)).toMatchObject({ status: 'ok' });
      expect(found.get(`model ${name}: tool call`)).toMatchObject({ status: 'ok' });
    }
  });

  it('names a key in the file itself, an unset variable, and a model without an endpoint', async () => {
    const url = 'http://127.0.0.1:1/v1';
    const models = {
      literal: { endpoints: [{ url, key: 'sk-literal-secret' }] },
      unset: { endpoints: [{ url, key: reference('NOT_SET') }] },
    };
    const { found, output } = await examine(catalogue(models, { model: 'nowhere' }));
    expect(found.get('model literal: settings')).toMatchObject({ status: 'failed' });
    expect(found.get('model unset: settings')?.detail).toContain('NOT_SET is not set');
    expect(found.get('model nowhere: endpoint')).toMatchObject({ status: 'warning' });
    expect(output).not.toContain('sk-literal-secret');
  });
});
