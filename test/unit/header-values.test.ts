import { describe, expect, test } from '@jest/globals';
import { headerValues } from '../../src/lib/header-values.ts';

describe('the values of a header', () => {
  const rawHeaders = ['Host', 'a', 'AUTHORIZATION', 'Bearer 1', 'X-Authorization', 'no', 'authorization', 'Bearer 2'];

  test('are those of all its occurrences, in any case and in order', () => {
    expect(headerValues({ rawHeaders }, 'authorization')).toEqual(['Bearer 1', 'Bearer 2']);
  });

  test('are not taken from the values of others', () => {
    expect(headerValues({ rawHeaders: ['x', 'host', 'y', 'host'] }, 'host')).toEqual([]);
  });
});
