import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { describe, expect, it } from '@jest/globals';
import { ROWS, valuesOf } from '../../bench/price/table.ts';
import { markdown, priceReport, smokePrice } from '../../bench/price.ts';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';

const PEER_PACKAGE = join(PROJECT_ROOT, 'bench/peers/package.json');

describe('The price benchmark', () => {
  it('measures every row for Tollgate, and connects, messages, deliveries and turns of both peers', async () => {
    const rounds = await smokePrice();
    for (const { figure } of ROWS) {
      const [value = Number.NaN] = valuesOf(rounds, 'raw', figure);
      expect({ figure, isNumber: Number.isFinite(value) }).toEqual({ figure, isNumber: true });
    }
    for (const target of ['socket.io', 'p1k', 'p4r'] as const) {
      expect(valuesOf(rounds, target, 'turn, worker µs')[0]).toBeGreaterThan(0);
      expect(valuesOf(rounds, target, 'delivery saturated, Redis µs')[0]).toBeGreaterThan(0);
    }
    const page = markdown(priceReport(rounds, { against: ['p1k', 'p4r'], commit: '' }));
    expect(page).toContain('| measure | raw | socket.io | p1k | p4r |');
    expect(page).toMatch(/\| connect, server ms \| [\d.]+ × p4r \(≤ 1\.5: (reached|missed)\) \|/);
  }, 180_000);

  it('measures peers in the versions that their package.json names', () => {
    const { dependencies } = JSON.parse(readFileSync(PEER_PACKAGE, 'utf8')) as { dependencies: Record<string, string> };
    const require = createRequire(PEER_PACKAGE);
    const installed = Object.keys(dependencies).map((name) => {
      const folder = require.resolve(name).split(`/node_modules/${name}/`)[0] ?? '';
      const file = join(folder, 'node_modules', name, 'package.json');
      return [name, (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version];
    });
    expect(Object.fromEntries(installed)).toEqual(dependencies);
  });
});
