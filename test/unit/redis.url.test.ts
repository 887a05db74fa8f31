import { describe, expect, it } from '@jest/globals';
import { describeRedisUrl, parseRedisUrl } from '../../src/lib/redis-url.ts';

const nobody = { username: undefined, password: undefined };
const plain = { tls: false, ...nobody, masterName: undefined, db: 0 };

describe('B171 REDIS_URL', () => {
  it.each([
    ['redis://r', { ...plain, topology: 'single', nodes: [{ host: 'r', port: 6379 }] }],
    ['redis://r:1/', { ...plain, topology: 'single', nodes: [{ host: 'r', port: 1 }] }],
    ['redis://r/15', { ...plain, topology: 'single', nodes: [{ host: 'r', port: 6379 }], db: 15 }],
    ['rediss://[::1]:7000', { ...plain, tls: true, topology: 'single', nodes: [{ host: '::1', port: 7000 }] }],
    ['redis://:p%40ss%2F@r', { ...plain, topology: 'single', password: 'p@ss/', nodes: [{ host: 'r', port: 6379 }] }],
    [
      'redis+sentinel://u:p@a,b:1,c.d/main_1',
      {
        ...plain,
        topology: 'sentinel',
        username: 'u',
        password: 'p',
        masterName: 'main_1',
        nodes: [
          { host: 'a', port: 26_379 },
          { host: 'b', port: 1 },
          { host: 'c.d', port: 26_379 },
        ],
      },
    ],
    [
      'rediss+sentinel://a/m/3',
      { ...plain, tls: true, topology: 'sentinel', masterName: 'm', db: 3, nodes: [{ host: 'a', port: 26_379 }] },
    ],
    [
      'rediss+cluster://u@a:1,b',
      {
        ...plain,
        tls: true,
        topology: 'cluster',
        username: 'u',
        nodes: [
          { host: 'a', port: 1 },
          { host: 'b', port: 6379 },
        ],
      },
    ],
  ])('%s is understood', (url, expected) => {
    expect(parseRedisUrl(url)).toEqual(expected);
  });

  it.each([
    'http://r',
    'redis://',
    'redis:///0',
    'redis://a,b',
    'redis://r/name',
    'redis://r/0/1',
    'redis://r?family=6',
    'redis://r:0',
    'redis://r:65536',
    'redis://a b',
    'redis://:secret%@r',
    'redis://:sec@ret@r',
    'redis+sentinel://a,b',
    'redis+sentinel://a,b/',
    'redis+sentinel://a/m m',
    'redis+sentinel://a,,b/m',
    'redis+cluster://a/1',
    'redis+other://a',
    'redis://:secret@',
  ])('%s is refused with a sentence that repeats nothing of it', (url) => {
    const answer = parseRedisUrl(url);
    expect(typeof answer).toBe('string');
    expect(answer).not.toMatch(/sec/);
    expect(describeRedisUrl(url)).not.toMatch(/sec/);
  });

  it('is printed without user and password', () => {
    expect(describeRedisUrl('rediss+sentinel://u:p%2Fq@a,[::1]:2/m')).toBe('rediss+sentinel://a:26379,[::1]:2/m');
    expect(describeRedisUrl('redis://u:p@r/3')).toBe('redis://r:6379');
  });
});
