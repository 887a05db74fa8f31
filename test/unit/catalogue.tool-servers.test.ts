import { describe, expect, it } from '@jest/globals';
import { CatalogueError } from '../../src/catalogue/catalogue-file.ts';
import { Catalogues } from '../../src/catalogue/catalogues.ts';
import type { ToolServerContext } from '../../src/catalogue/tool-servers.ts';
import { catalogueFiles, planFile } from '../support/catalogues.ts';

const CONTEXT: ToolServerContext = { variable: (name) => (name === 'KEY' ? 'secret' : undefined) };
const remote = (row: object = {}) => ({ name: 'remote', url: 'http://127.0.0.1:1/mcp', ...row });
const program = (row: object = {}) => ({ name: 'program', command: 'server', ...row });
const basic = { permission: 'basic', units: 1 };

function read(servers: unknown, context = CONTEXT, plans: unknown = planFile): Catalogues {
  return new Catalogues(catalogueFiles({ plans, servers }), context);
}

/** Returns the problems as `field: message`. */
function mistakes(servers: unknown, context = CONTEXT): string[] {
  try {
    read(servers, context);
  } catch (error) {
    if (error instanceof CatalogueError) return error.mistakes.map(({ field, message }) => `${field}: ${message}`);
    throw error;
  }
  return [];
}

const of = (...rows: object[]) => ({ servers: rows });
const nameOf = (catalogues: Catalogues, tool: string) => {
  // No server has been contacted yet, so its tools have no executor.
  return catalogues.tools.all.filter(({ upstream }) => upstream?.tool === tool).map(({ name }) => name);
};

describe('the tools of upstream servers', () => {
  it('have their own names, and their server before it where a name is taken, the first of the file first', () => {
    const servers = of(remote({ tools: { search: basic, list_agents: basic } }), program({ tools: { search: basic } }));
    const catalogues = read(servers);
    expect(nameOf(catalogues, 'search')).toEqual(['search', 'program__search']);
    expect(nameOf(catalogues, 'list_agents')).toEqual(['remote__list_agents']);
    expect(catalogues.tools.get('list_agents')?.executor).toBe('builtin');
  });

  it('can be named by the operator, and must be where their own name is none for a model', () => {
    expect(nameOf(read(of(remote({ tools: { 'a.b': { ...basic, as: 'a_b' } } }))), 'a.b')).toEqual(['a_b']);
    expect(mistakes(of(remote({ tools: { 'a.b': basic } })))).toEqual([
      'servers.0.tools.a.b: needs a unique name: set it with "as"',
    ]);
  });

  it.each(['a/b', 'a b', 'a:b', 'ä', '.', 'x'.repeat(200)])(
    'can have the name %s at their server, under "as"',
    (name) => {
      expect(nameOf(read(of(remote({ tools: { [name]: { ...basic, as: 'a_b' } } }))), name)).toEqual(['a_b']);
      expect(mistakes(of(remote({ tools: { [name]: basic } })))).toEqual([
        `servers.0.tools.${name}: needs a unique name: set it with "as"`,
      ]);
    },
  );

  it('have no executor until their server has said that they are there', () => {
    expect(read(of(remote({ tools: { search: basic } }))).tools.get('search')).toMatchObject({ executor: 'none' });
  });

  it('can execute a row that has no executor, and no other', () => {
    const execute = (row: string) => of(remote({ tools: { search: { executes: row } } }));
    expect(nameOf(read(execute('query_corpus')), 'search')).toEqual(['query_corpus']);
    for (const row of ['list_agents', 'no_such_tool']) {
      expect(mistakes(execute(row))).toEqual([
        `servers.0.tools.search.executes: ${row} is not a tool without executor`,
      ]);
    }
  });

  it('may ask callers for what the operator says, and for nothing where it says nothing', () => {
    const { servers } = read(of(remote(), program({ asks: ['elicitation', 'roots'] })));
    expect(servers.map(({ allowedInputRequests }) => allowedInputRequests)).toEqual([[], ['elicitation', 'roots']]);
  });

  it('can be named by plans', () => {
    const pro = { ...planFile.plans.pro, allowances: { search: 7 } };
    const plans = { ...planFile, plans: { ...planFile.plans, pro } };
    const catalogues = read(of(remote({ tools: { search: basic } })), CONTEXT, plans);
    expect(catalogues.plans.get('pro')?.allowances.get('search')).toBe(7);
  });
});

describe('the file of upstream servers is refused, with the field, when', () => {
  it.each([
    ['it is no JSON', '{"servers": [', /^: is not valid JSON/],
    ['it is not there', '', /^: is missing or empty/],
    ['a field is unknown', of(remote({ tool: {} })), /^servers\.0\.tool: is not a field/],
    ['a server stands twice', of(remote(), remote()), /^servers\.1\.name: remote is a duplicate/],
    ['a name is none', of(remote({ name: 'Remote__1' })), /^servers\.0\.name: /],
    ['a server has no address', of({ name: 'a' }), /^servers\.0: needs either a url or a command/],
    ['a server has two', of(remote({ command: 'x' })), /^servers\.0: needs either/],
    ['the URL is none', of(remote({ url: 'remote:80' })), /^servers\.0\.url: Invalid URL/],
    ['a program has headers', of(program({ headers: {} })), /^servers\.0\.headers: is only allowed with a url/],
    ['a URL has arguments', of(remote({ args: [] })), /^servers\.0\.args: is only allowed with a command/],
    [
      'a permission is unknown',
      of(remote({ tools: { a: { permission: 'root', units: 1 } } })),
      /permission: root is no/,
    ],
    ['a tool has no price', of(remote({ tools: { a: { permission: 'basic' } } })), /a: needs a permission and units/],
    [
      'a price is below nothing',
      of(remote({ tools: { a: { ...basic, units: -1 } } })),
      /^servers\.0\.tools\.a\.units: /,
    ],
    [
      'a row has two prices',
      of(remote({ tools: { a: { ...basic, executes: 'query_corpus' } } })),
      /a: executes a tool/,
    ],
    ['resources have no permission', of(remote({ resources: { allow: ['*'] } })), /^servers\.0\.resources\.permission/],
    [
      'prompts have an unknown one',
      of(remote({ prompts: { permission: 'root', allow: ['*'] } })),
      /root is not a permission/,
    ],
    ['a name has a line break', of(remote({ tools: { 'a\nb': { ...basic, as: 'a' } } })), /^servers\.0\.tools/],
    ['a bound is too small', of(remote({ response_kib: 1 })), /^servers\.0\.response_kib/],
    ['a version is unknown', of(remote({ protocol: '2023-01-01' })), /^servers\.0\.protocol/],
    ['a server asks for anything else', of(remote({ asks: ['elicitation', 'money'] })), /^servers\.0\.asks\.1: /],
    ['a secret stands in it', of(remote({ headers: { authorization: 'Bearer abc' } })), /must refer to an environment/],
    ['a variable is not set', of(program({ env: { A: `\${NOT_THERE}` } })), /NOT_THERE is not set/],
    [
      'a variable is our own',
      of(remote({ headers: { a: `\${SERVICE_SECRET}` } })),
      /SERVICE_SECRET is a variable of Tollgate/,
    ],
  ])('%s', (_why, servers, expected) => {
    const found = mistakes(servers);
    expect(found[0]).toMatch(expected);
    expect(found.join()).not.toMatch(/Bearer abc/);
  });

  it('a server is public and plain http, in production only', () => {
    const servers = of(remote({ url: 'http://tools.example.com/mcp' }));
    expect(mistakes(servers)).toEqual([]);
    expect(mistakes(servers, { ...CONTEXT, production: true })).toEqual([
      expect.stringMatching(/^servers\.0\.url: .*plain http/),
    ]);
  });
});

describe('a secret', () => {
  it('is what the variable has, and part of what is said', () => {
    const servers = of(
      remote({ headers: { authorization: `Bearer \${KEY}` } }),
      program({ env: { TOKEN: `\${KEY}` } }),
    );
    expect(read(servers).servers.map(({ address }) => address)).toMatchObject([
      { headers: { authorization: 'Bearer secret' } },
      { env: { TOKEN: 'secret' } },
    ]);
  });

  it('is not required by a process without connections', () => {
    expect(mistakes(of(program({ env: { A: `\${NOT_THERE}` } })), {})).toEqual([]);
  });
});
