import { describe, expect, it } from '@jest/globals';
import { authServiceSurfaces, publicSurfaces, serviceSurfaces } from '../support/cpu/http-surfaces.ts';
import { expensiveCells, THOROUGH } from '../support/cpu/report.ts';
import { useMeteredStack } from '../support/cpu/stack.ts';
import { serviceToken } from '../support/tokens.ts';

const TIMEOUT_MS = THOROUGH ? 3_600_000 : 300_000;

describe('CPU per kilobyte of an HTTP request', () => {
  const { addresses, meter } = useMeteredStack();

  it(
    'stays below 50 µs above the fixed cost on every public route',
    async () => {
      expect(await expensiveCells(meter(), publicSurfaces(addresses()))).toEqual([]);
    },
    TIMEOUT_MS,
  );

  it(
    'stays below 50 µs above the fixed cost on the routes of services',
    async () => {
      const token = await serviceToken('admin usage:read usage:write', { stack: addresses() });
      expect(await expensiveCells(meter(), serviceSurfaces(addresses(), token))).toEqual([]);
    },
    TIMEOUT_MS,
  );

  it(
    'stays below 50 µs above the fixed cost on every route of the auth service',
    async () => {
      expect(await expensiveCells(meter(), authServiceSurfaces(addresses()))).toEqual([]);
    },
    TIMEOUT_MS,
  );
});
