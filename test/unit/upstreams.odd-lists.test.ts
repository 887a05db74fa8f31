import { describe, expect, it } from '@jest/globals';
import { pino } from 'pino';
import { until } from '../support/until.ts';
import { loneUpstream } from '../support/upstreams/lone-upstream.ts';
import { GOOD_TOOL, GREETING, type ScriptedAnswers, ScriptedServer } from '../support/upstreams/scripted-server.ts';

const LEGACY = { protocol: '2025-11-25' };
const OBJECT = { type: 'object' };

async function listing(answers: ScriptedAnswers, row: object = {}) {
  const server = await ScriptedServer.start(answers);
  const lone = loneUpstream({ url: server.url, ...LEGACY, ...row });
  await lone.ready();
  const { tools, omitted } = lone.upstream.capabilities;
  return { server, ...lone, names: [...tools.keys()], omitted };
}

const rows = (...tools: unknown[]): ScriptedAnswers => ({ 'tools/list': { result: { tools } } });

describe('a list of tools', () => {
  it.each<[string, unknown, RegExp]>([
    ['inputSchema null', { name: 'odd', inputSchema: null }, /^inputSchema/],
    ['no inputSchema', { name: 'odd' }, /^inputSchema/],
    ['an inputSchema that is true', { name: 'odd', inputSchema: true }, /^inputSchema/],
    ['an inputSchema of an array', { name: 'odd', inputSchema: { type: 'array' } }, /^inputSchema\.type/],
    [
      'an outputSchema of an array',
      { name: 'odd', inputSchema: OBJECT, outputSchema: { type: 'array' } },
      /^outputSch/,
    ],
    ['properties that are an array', { name: 'odd', inputSchema: { ...OBJECT, properties: [] } }, /^inputSchema\.prop/],
    ['required that is no list', { name: 'odd', inputSchema: { ...OBJECT, required: 'a' } }, /^inputSchema\.required/],
    ['a schema that is none', { name: 'odd', inputSchema: { ...OBJECT, properties: { a: { type: 'text' } } } }, /type/],
  ])('with a row of %s has the other tools, and the row with its field as omitted', async (_name, odd, reason) => {
    const lines: string[] = [];
    const logger = pino({ level: 'warn' }, { write: (line: string) => lines.push(line) });
    const server = await ScriptedServer.start(rows(odd, GOOD_TOOL));
    const { ready, upstream, call, metrics } = loneUpstream({ url: server.url, ...LEGACY }, { logger });
    await ready();
    const { tools, omitted } = upstream.capabilities;
    expect([...tools.keys()]).toEqual(['good']);
    expect(omitted).toEqual([{ list: 'tools/list', name: 'odd', reason: expect.stringMatching(reason) }]);
    expect(await call('good')).toBe('fine');
    await until(() => lines.some((line) => line.includes('"entry":"odd"') && line.includes('omitted')));
    const gauge = /tollgate_upstream_omitted_entries\{server="remote",list="tools\/list"\} 1/;
    expect(await metrics.registry.metrics()).toMatch(gauge);
  });

  it.each<[string, unknown]>([
    ['is null', null],
    ['is text', 'odd'],
    ['has no name', { inputSchema: OBJECT }],
    ['has a number as name', { name: 7, inputSchema: OBJECT }],
  ])('with a row that %s has the other tools, and reports one row without a name', async (_name, odd) => {
    const { names, omitted } = await listing(rows(odd, GOOD_TOOL));
    expect(names).toEqual(['good']);
    expect(omitted).toMatchObject([{ list: 'tools/list', name: '' }]);
  });

  it('with an odd row that the operator did not name has the other tools, and reports nothing', async () => {
    const { names, omitted } = await listing(rows({ name: 'unnamed', inputSchema: null }, GOOD_TOOL));
    expect([names, omitted]).toEqual([['good'], []]);
  });

  it.each<[string, object]>([
    ['description null', { description: null }],
    ['description a number', { description: 7 }],
    ['annotations null', { annotations: null }],
    ['annotations of another form', { annotations: { readOnlyHint: 'yes' } }],
    [
      'title, icons, execution, outputSchema and _meta null',
      { title: null, icons: null, execution: null, _meta: null },
    ],
    ['outputSchema null', { outputSchema: null }],
    ['an unknown value of taskSupport', { execution: { taskSupport: 'maybe' } }],
    ['inputSchema {}', { inputSchema: {} }],
    ['an inputSchema of only anyOf', { inputSchema: { anyOf: [{ required: ['a'] }, { required: ['b'] }] } }],
    ['an inputSchema whose type is a list', { inputSchema: { type: ['object', 'null'] } }],
    ['properties and required null', { inputSchema: { ...OBJECT, properties: null, required: null } }],
  ])('has a tool with %s, because its meaning is clear', async (_name, odd) => {
    const { names, omitted, call } = await listing(rows({ name: 'odd', inputSchema: OBJECT, ...odd }, GOOD_TOOL));
    expect([names, omitted]).toEqual([['odd', 'good'], []]);
    expect(await call('odd', { a: 1 })).toBe('fine');
  });

  it('that becomes odd while in use costs no call', async () => {
    const { server, call, upstream } = await listing(rows(GOOD_TOOL));
    server.answers = rows(null, { name: 'odd' }, GOOD_TOOL);
    const reading = upstream.request('lists', new AbortController().signal, (client) => {
      return client.listTools(undefined, { cacheMode: 'refresh' });
    });
    const answers = await Promise.all([reading, ...Array.from({ length: 12 }, () => call('good'))]);
    expect(answers.slice(1)).toEqual(Array.from({ length: 12 }, () => 'fine'));
    expect(upstream.status.breakers).toEqual({ calls: 'closed', reads: 'closed', lists: 'closed' });
  });

  it.each([
    ['null', null],
    ['empty', ''],
    ['a number', 7],
  ])('ends with a nextCursor that is %s', async (_name, nextCursor) => {
    const { names, server } = await listing({ 'tools/list': { result: { tools: [GOOD_TOOL], nextCursor } } });
    expect([names, server.received('tools/list').length]).toEqual([['good'], 1]);
  });

  it('whose pages never end is read to the bound, and reported', async () => {
    const { names, omitted } = await listing({
      'tools/list': ({ params }) => {
        const page = Number(params.cursor ?? 0);
        return { result: { tools: page === 3 ? [GOOD_TOOL] : [], nextCursor: String(page + 1) } };
      },
    });
    expect(names).toEqual(['good']);
    expect(omitted).toEqual([{ list: 'tools/list', name: '', reason: 'the list has more than 16 pages' }]);
  });

  it('whose cursor repeats itself is read once, and reported', async () => {
    const { names, omitted, server } = await listing({
      'tools/list': ({ params }) => ({ result: { tools: params.cursor ? [GOOD_TOOL] : [], nextCursor: 'a' } }),
    });
    expect([names, server.received('tools/list').length]).toEqual([['good'], 2]);
    expect(omitted).toMatchObject([{ reason: 'nextCursor repeats itself' }]);
  });

  it('is requested from a server that does not declare tools', async () => {
    const initialize = { result: { ...GREETING, capabilities: { prompts: {} } } };
    expect((await listing({ initialize })).names).toEqual(['good']);
  });

  it('that an undeclared server does not have is reported', async () => {
    const { names, omitted } = await listing({
      initialize: { result: { ...GREETING, capabilities: {} } },
      'tools/list': { error: { code: -32601, message: 'Method not found' } },
    });
    expect([names, omitted]).toEqual([[], [{ list: 'tools/list', name: '', reason: 'the server has no such list' }]]);
  });

  it.each([
    ['capabilities null', { ...GREETING, capabilities: null }],
    ['serverInfo null', { ...GREETING, serverInfo: null, capabilities: { tools: { listChanged: null } } }],
    ['serverInfo without a version', { ...GREETING, serverInfo: { name: 'a' }, capabilities: { tools: {} } }],
    ['instructions null', { ...GREETING, capabilities: { tools: {} }, instructions: null }],
  ])('is read from a server that initializes with %s', async (_name, result) => {
    expect((await listing({ initialize: { result } })).names).toEqual(['good']);
  });
});

describe('lists of resources and prompts', () => {
  const EVERYTHING = { permission: 'basic', allow: ['*'] };
  const OFFER = { resources: EVERYTHING, prompts: EVERYTHING, timeout_seconds: 2 };
  const initialize = { result: { ...GREETING, capabilities: { tools: {}, resources: {}, prompts: {} } } };

  it('are read row by row, with null as a missing value', async () => {
    const { upstream, omitted } = await listing(
      {
        initialize,
        'resources/list': {
          result: { resources: [null, { uri: 'a:b', name: null, size: null }, { uri: 'a:c', name: 'c', size: '3' }] },
        },
        'resources/templates/list': { result: { resourceTemplates: [{ uriTemplate: 'a:{b}', name: 'd' }, {}] } },
        'prompts/list': {
          result: {
            prompts: [
              { name: 'p', arguments: [{ name: 'x', required: null }] },
              { name: 'q', arguments: [{}] },
            ],
          },
        },
      },
      OFFER,
    );
    const { resources, templates, prompts } = upstream.capabilities;
    expect(resources).toEqual([
      { uri: 'a:b', name: 'a:b' },
      { uri: 'a:c', name: 'c' },
    ]);
    expect([templates.length, prompts]).toEqual([1, [{ name: 'p', arguments: [{ name: 'x' }] }]]);
    expect(omitted.map(({ list, name }) => [list, name])).toEqual([
      ['resources/list', ''],
      ['resources/templates/list', ''],
      ['prompts/list', 'q'],
    ]);
  });

  it.each<[string, ScriptedAnswers['']]>([
    ['is refused', { error: { code: -32603, message: 'no' } }],
    ['fails', { status: 500 }],
    ['never comes', 'silence'],
    ['is no list', { result: { prompts: 'none' } }],
  ])('leave the tools usable when one of them %s', async (_name, answer) => {
    const { names, omitted } = await listing(
      { initialize, 'resources/list': { result: { resources: [] } }, 'prompts/list': answer },
      OFFER,
    );
    expect(names).toEqual(['good']);
    expect(omitted).toEqual(expect.arrayContaining([expect.objectContaining({ list: 'prompts/list', name: '' })]));
  });
});

describe('the schema of a tool', () => {
  const HTTP = 'http://json-schema.org';
  it.each<[string, object]>([
    ['draft-04', { $schema: `${HTTP}/draft-04/schema#`, properties: { a: { minimum: 0 } } }],
    ['draft-06', { $schema: `${HTTP}/draft-06/schema#`, properties: { a: { exclusiveMinimum: -1 } } }],
    ['draft-07', { $schema: `${HTTP}/draft-07/schema#`, if: { required: ['b'] }, properties: { a: { minimum: 0 } } }],
    ['draft-07, by https', { $schema: 'https://json-schema.org/draft-07/schema', properties: { a: { minimum: 0 } } }],
    ['2019-09', { $schema: 'https://json-schema.org/draft/2019-09/schema', properties: { a: { minimum: 0 } } }],
    ['2020-12', { $schema: 'https://json-schema.org/draft/2020-12/schema', properties: { a: { minimum: 0 } } }],
    ['an unnamed draft with tuples', { properties: { a: { minimum: 0 }, b: { items: [{ type: 'string' }] } } }],
    ['an unknown dialect', { $schema: 'https://example.com/dialect', properties: { a: { minimum: 0 } } }],
    ['the latest draft by its old name', { $schema: `${HTTP}/schema#`, properties: { a: { minimum: 0 } } }],
  ])('of %s is compiled, and wrong arguments are refused here', async (_name, schema) => {
    const { upstream, names } = await listing(rows({ name: 'odd', inputSchema: { ...OBJECT, ...schema } }));
    expect(names).toEqual(['odd']);
    const tool = upstream.capabilities.tools.get('odd');
    expect([tool?.argumentsProblem({ a: 1 }), tool?.argumentsProblem({ a: -1 })]).toEqual([
      undefined,
      expect.stringContaining('arguments/a'),
    ]);
  });

  it.each<[string, object]>([
    ['draft-04', { $schema: `${HTTP}/draft-04/schema#`, properties: { a: { minimum: 0, exclusiveMinimum: true } } }],
    ['draft-04 with id', { $schema: `${HTTP}/draft-04/schema#`, id: 'http://a/b', properties: { a: { minimum: 0 } } }],
    ['draft-04, unnamed', { properties: { a: { minimum: 0, exclusiveMinimum: true } } }],
    ['draft-03', { properties: { a: { type: 'number', required: true } } }],
    ['an unknown dialect', { $schema: 'https://example.com/dialect', properties: { a: { type: 'decimal' } } }],
  ])('of %s with keywords of its own is left to the server', async (_name, schema) => {
    const { upstream, call } = await listing(rows({ name: 'odd', inputSchema: { ...OBJECT, ...schema } }));
    expect(upstream.capabilities.tools.get('odd')?.argumentsProblem({ a: -1 })).toBeUndefined();
    expect(await call('odd', { a: -1 })).toBe('fine');
  });

  it('that is closed beside its alternatives is opened, because it admits none of them', async () => {
    const properties = { a: { minimum: 0 } };
    const union = { ...OBJECT, oneOf: [{ ...OBJECT, properties }] };
    const own = { ...union, properties, additionalProperties: false };
    const closed = { ...union, additionalProperties: false };
    const { upstream } = await listing(rows({ name: 'odd', inputSchema: closed }, { name: 'good', inputSchema: own }));
    const listed = (tool: string) => upstream.capabilities.tools.get(tool)?.arguments;
    expect([listed('odd'), listed('good')]).toEqual([union, own]);
  });

  it('can be as large as the operator says', async () => {
    const inputSchema = { ...OBJECT, description: 'x'.repeat(40_000) };
    expect((await listing(rows({ name: 'odd', inputSchema }))).omitted).toMatchObject([{ name: 'odd' }]);
    expect((await listing(rows({ name: 'odd', inputSchema }), { schema_kib: 64 })).names).toEqual(['odd']);
  });
});
