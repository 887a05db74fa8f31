import type { IncomingMessage } from 'node:http';
import { describe, expect, it } from '@jest/globals';
import { choose, MAX_READ_LENGTH } from '../../src/agents/built-in/intents.ts';
import { findCredential, messageCredential, unpaddedProtocols } from '../../src/auth/credentials.ts';
import { linearPattern, NotLinear } from '../../src/lib/linear-patterns.ts';
import { withoutTrailing } from '../../src/lib/text.ts';
import { TollgateError } from '../../src/protocol/errors.ts';
import { clientAddress } from '../../src/transports/client-address.ts';
import { growthOf } from '../support/growth.ts';

/** Twice the size may cost this factor; a linear cost is 2, a quadratic one 4. */
const LINEAR = 2.8;

/** Returns the code of a refusal, so that refused input is measured like accepted input. */
function codeOf(run: () => unknown): string {
  try {
    run();
    return 'accepted';
  } catch (error) {
    if (error instanceof TollgateError) return error.code;
    throw error;
  }
}

const protocols = (value: string) => ({ 'sec-websocket-protocol': value });

describe('CPU grows no faster than the input', () => {
  it.each<[string, (size: number) => string]>([
    ['padding that another character follows', (size) => `${'='.repeat(size)}x`],
    ['padding and spaces', (size) => `${'= '.repeat(size / 2)}x`],
    ['spaces within', (size) => `a${' '.repeat(size)}b`],
    ['a padded token', (size) => `jwt.${'A='.repeat(size / 2)}`],
    ['commas', (size) => ','.repeat(size)],
  ])('in Sec-WebSocket-Protocol: %s', (_what, make) => {
    const read = (value: string) => [
      codeOf(() => unpaddedProtocols(protocols(value))),
      codeOf(() => findCredential(protocols(value))),
    ];
    expect(growthOf(make, 1_500, read)).toBeLessThan(LINEAR);
  });

  it.each<[string, (size: number) => string]>([
    ['spaces', (size) => `Bearer${' '.repeat(size)}x`],
    ['words', (size) => 'a '.repeat(size / 2)],
    ['dots', (size) => `Bearer ${'.'.repeat(size)}`],
    ['equals signs', (size) => `Bearer a${'='.repeat(size)}b`],
  ])('in Authorization, and in a message: %s', (_what, make) => {
    const read = (value: string) => [
      codeOf(() => findCredential({ authorization: value })),
      codeOf(() => messageCredential(value)),
    ];
    expect(growthOf(make, 1_500, read)).toBeLessThan(LINEAR);
  });

  it.each<[string, (size: number) => string]>([
    ['commas', (size) => ','.repeat(size)],
    ['brackets', (size) => '['.repeat(size)],
    ['colons', (size) => `[${':'.repeat(size)}`],
  ])('in X-Forwarded-For: %s', (_what, make) => {
    const read = (value: string) => {
      const request = { headers: { 'x-forwarded-for': value }, socket: { remoteAddress: '192.0.2.1' } };
      return clientAddress(request as unknown as IncomingMessage, 2);
    };
    expect(growthOf(make, 4_000, read)).toBeLessThan(LINEAR);
  });

  it.each<[string, (size: number) => string]>([
    ['quotes that close nothing', (size) => `new thread ${'“'.repeat(size)}`],
    ['quotes in pairs', (size) => `new thread ${'"'.repeat(size)}`],
    ['spaces after a title word', (size) => `new thread about${' '.repeat(size)}\n`],
    ['title words', (size) => `new thread ${'about '.repeat(size / 6)}\n`],
    ['full stops', (size) => `new thread ${'.'.repeat(size)}x`],
    ['beginnings of stems', (size) => `new thread ${'ru'.repeat(size / 2)}`],
    ['stems within words', (size) => `new thread x${'run'.repeat(size / 3)}`],
  ])('in a message to the built-in agent: %s', (_what, make) => {
    const tools = ['create_thread', 'get_thread_history', 'get_agent_status'];
    // Within the length that the agent reads; above it every message costs the same.
    expect(growthOf(make, MAX_READ_LENGTH / 2 - 20, (message) => choose(message, tools))).toBeLessThan(LINEAR);
  });

  it('in a text whose end is cut off', () => {
    expect(
      growthOf(
        (size) => `${'='.repeat(size)}x`,
        4_000,
        (text) => withoutTrailing(text, '='),
      ),
    ).toBeLessThan(LINEAR);
    expect(
      growthOf(
        (size) => `x${'='.repeat(size)}`,
        4_000,
        (text) => withoutTrailing(text, '='),
      ),
    ).toBeLessThan(LINEAR);
  });

  it.each<[string, (size: number) => string]>([
    ['^(a+)+$', (size) => `${'a'.repeat(size)}b`],
    ['\\s+$', (size) => `${' '.repeat(size)}x`],
    ['^(.*,)+x', (size) => ','.repeat(size)],
  ])('in text that the pattern %s of a tool is matched against', (source, make) => {
    const pattern = linearPattern(source);
    expect(growthOf(make, 4_000, (text) => pattern.test(text))).toBeLessThan(LINEAR);
  });
});

describe('the measurement of growth', () => {
  it('finds a cost that is quadratic', () => {
    const slow = /=+$/;
    expect(
      growthOf(
        (size) => `${'='.repeat(size)}x`,
        500,
        (text) => slow.test(text),
      ),
    ).toBeGreaterThan(LINEAR);
  });
});

describe('bounds on what is read', () => {
  it.each([
    ['12,289 characters', 'a'.repeat(12_289)],
    ['129 entries', Array.from({ length: 129 }, (_, at) => `p${at}`).join(',')],
  ])('Sec-WebSocket-Protocol of %s is INVALID_FORMAT', (_what, value) => {
    expect(codeOf(() => unpaddedProtocols(protocols(value)))).toBe('INVALID_FORMAT');
    expect(codeOf(() => findCredential(protocols(value)))).toBe('INVALID_FORMAT');
  });

  it.each([
    ['12,288 characters', 'a'.repeat(12_288)],
    ['128 entries', Array.from({ length: 128 }, (_, at) => `p${at}`).join(',')],
  ])('Sec-WebSocket-Protocol of %s is read', (_what, value) => {
    expect(codeOf(() => unpaddedProtocols(protocols(value)))).toBe('accepted');
    expect(codeOf(() => findCredential(protocols(value)))).toBe('accepted');
  });

  it('the built-in agent reads the first 2,000 characters of a message', () => {
    const tools = ['analyze_workload', 'system_health', 'list_agents'];
    const asked = (message: string) => choose(message, tools).map(({ tool }) => tool);
    expect(asked(`${' '.repeat(MAX_READ_LENGTH - 6)}health`)).toEqual(['system_health']);
    expect(asked(`${' '.repeat(MAX_READ_LENGTH)}health`)).toEqual(['analyze_workload', 'list_agents']);
  });
});

describe('the title of a thread', () => {
  it.each([
    ['Start a thread "Costs of May"', 'Costs of May'],
    ["New thread called 'a' please", 'a'],
    ['New thread “first “second”', 'first “second'],
    ['New thread "" then "third"', ' then '],
    ['New thread """"', 'New thread """"'],
    ['Open a thread about billing...', 'billing'],
    ['Open a thread TITLED   The plan?!', 'The plan'],
    ['Open a thread about billing\nThanks', 'billing'],
    ['New thread about', 'New thread about'],
    ['new thread?', 'new thread'],
  ])('of %j is %j', (message, title) => {
    expect(choose(message, ['create_thread'])).toEqual([{ tool: 'create_thread', args: { title: title.trim() } }]);
  });
});

describe('a pattern of a tool', () => {
  it.each([
    ['^[a-z]{2,8}$', 'abc', 'ABC'],
    ['\\d+', 'a1b', 'abc'],
    ['^\\p{L}+$', 'é', '1'],
    ['^a\\/b\\u00e9$', 'a/bé', 'a/be'],
    ['^.$', '😀', '😀😀'],
    ['^(?<year>\\d{4})-[^-]+$', '2026-x', '2026-'],
  ])('%s matches what ECMAScript says', (source, match, other) => {
    expect([match, other].map((text) => linearPattern(source).test(text))).toEqual([true, false]);
    expect([match, other].map((text) => new RegExp(source, 'u').test(text))).toEqual([true, false]);
  });

  it.each(['(?=a)b', '(?<!a)b', '(a)\\1', 'a{1,2000}'])('%s cannot be matched in linear time', (source) => {
    expect(() => linearPattern(source)).toThrow(NotLinear);
  });

  it.each(['(', '\\Aa', '(?P<a>b)', 'a++'])('%s is no expression', (source) => {
    expect(() => linearPattern(source)).toThrow(SyntaxError);
  });
});
