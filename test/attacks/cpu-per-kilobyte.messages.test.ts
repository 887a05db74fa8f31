import { describe, expect, it } from '@jest/globals';
import { mcpSurfaces, messageSurfaces, socketIoSurfaces, strangerSurfaces } from '../support/cpu/message-surfaces.ts';
import { expensiveCells, THOROUGH } from '../support/cpu/report.ts';
import { useMeteredStack } from '../support/cpu/stack.ts';

const TIMEOUT_MS = THOROUGH ? 3_600_000 : 300_000;

describe('CPU per kilobyte of a message', () => {
  const { addresses, meter } = useMeteredStack();

  it.each([
    ['in every frame and payload before authentication', strangerSurfaces],
    ['in every field of every message of a user', messageSurfaces],
    ['in every event of Socket.IO', socketIoSurfaces],
    ['in every field of a request of MCP', mcpSurfaces],
  ])(
    'stays below 50 µs above the fixed cost %s',
    async (_where, surfaces) => {
      expect(await expensiveCells(meter(), surfaces(addresses(), { all: THOROUGH }))).toEqual([]);
    },
    TIMEOUT_MS,
  );
});
