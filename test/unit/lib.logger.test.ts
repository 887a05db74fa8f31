import { describe, expect, it } from '@jest/globals';
import { describeError, userHash } from '../../src/lib/logger.ts';

describe('an error as it is logged', () => {
  it('does not quote what could not be parsed', () => {
    let thrown: unknown;
    try {
      JSON.parse('{"text": secret}');
    } catch (error) {
      thrown = error;
    }
    expect(String(thrown)).toContain('secret');
    expect(JSON.stringify(describeError(thrown))).not.toContain('secret');
  });

  it('does not repeat the arguments of a command that Redis does not know', () => {
    const error = new Error("ERR unknown command 'SPUBLISH', with args beginning with: 'channel' 'secret' ");
    expect(describeError(error)).toMatchObject({ message: "ERR unknown command 'SPUBLISH'" });
    expect(JSON.stringify(describeError(error))).not.toContain('secret');
  });

  it('is bounded, also when it is its own cause', () => {
    const error = new Error('x'.repeat(100_000));
    error.cause = error;
    expect(JSON.stringify(describeError(error)).length).toBeLessThan(20_000);
  });

  it('may be anything', () => {
    expect(describeError('a text')).toEqual({ type: 'string' });
    expect(describeError(undefined)).toEqual({ type: 'undefined' });
  });
});

it('a user in the log is the same each time, and not named', () => {
  expect(userHash('user_1')).toBe(userHash('user_1'));
  expect(userHash('user_1')).not.toContain('user_1');
});
