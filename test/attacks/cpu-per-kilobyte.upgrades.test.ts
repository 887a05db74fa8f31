import { describe, expect, it } from '@jest/globals';
import { expensiveCells, THOROUGH } from '../support/cpu/report.ts';
import { useMeteredStack } from '../support/cpu/stack.ts';
import { upgradeSurfaces } from '../support/cpu/upgrade-surfaces.ts';

const TIMEOUT_MS = THOROUGH ? 3_600_000 : 300_000;

describe('CPU per kilobyte of an upgrade request', () => {
  const { addresses, meter } = useMeteredStack();

  it(
    'stays below 50 µs above the fixed cost, in every header, query parameter and path, for every shape',
    async () => {
      const url = String(addresses().gateways[0]?.url);
      expect(await expensiveCells(meter(), upgradeSurfaces(url, { all: THOROUGH }))).toEqual([]);
    },
    TIMEOUT_MS,
  );
});
