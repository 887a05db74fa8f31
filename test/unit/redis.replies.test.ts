import { describe, expect, it } from '@jest/globals';
import { anything, describeReply, done, integer, list, literal, oneOf, text, tuple } from '../../src/redis/replies.ts';

const outcome = oneOf(
  tuple([literal('begun'), integer], integer),
  tuple([literal('running'), integer, text]),
  tuple([literal('limited')]),
);

describe('the shape of a script reply', () => {
  it.each([
    [text, 'a'],
    [text, ''],
    [integer, 0],
    [done, 1],
    [anything, null],
    [list(text), []],
    [list(text), ['a', 'b']],
    [tuple([]), []],
    [tuple([text, integer]), ['a', 1]],
    [tuple([text], list(integer)), ['a', [1], []]],
    [outcome, ['begun', 1]],
    [outcome, ['begun', 1, 2, 3]],
    [outcome, ['running', 1, 'a']],
    [outcome, ['limited']],
  ])('accepts what the script returns (%#)', (shape, reply) => {
    expect(shape(reply)).toBe(true);
  });

  it.each([
    [text, null],
    [text, 1],
    [text, undefined],
    [integer, '1'],
    [done, 2],
    [list(text), 'a'],
    [list(text), ['a', null]],
    [tuple([]), ['a']],
    [tuple([text, integer]), ['a']],
    [tuple([text, integer]), ['a', 1, 2]],
    [tuple([text, integer]), null],
    [tuple([text], integer), ['a', 1, 'b']],
    [outcome, []],
    [outcome, ['begun']],
    [outcome, ['running', 1, null]],
    [outcome, ['stopped']],
  ])('rejects everything else (%#)', (shape, reply) => {
    expect(shape(reply)).toBe(false);
  });

  it('is described without the contents, which may be data of a user', () => {
    expect(describeReply(['begun', 1, null, ['secret']])).toBe('[string, number, null, array]');
    expect(describeReply(Array.from({ length: 9 }, () => 1))).toMatch(/^\[(number, ){8}…\]$/);
    expect(describeReply('secret')).toBe('string');
  });
});
