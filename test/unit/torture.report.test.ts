import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from '@jest/globals';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { FAULTS } from '../../torture/lib/faults.ts';
import type { HistoryLine } from '../../torture/lib/history.ts';
import { htmlReport, markdownRows } from '../../torture/lib/report.ts';
import { resultOf, summaries } from '../../torture/lib/results.ts';

const run = (id: number, from: number, to: number): HistoryLine[] => [
  { t: 'invoked', at: from, id, op: 'run', key: `req_${id}`, user: 'ann', client: 'ann-ws' },
  { t: 'ok', at: to, id, runId: `run_${id}`, end: 'agent_completed' },
];
const HISTORY: readonly HistoryLine[] = [
  { t: 'fault', at: 100, id: 1, kind: 'redis-cut', target: 'redis' },
  ...run(1, 150, 2_150),
  { t: 'healed', at: 2_000, id: 1 },
  ...run(2, 2_100, 2_700),
  { t: 'fault', at: 3_000, id: 2, kind: 'redis-cut', target: 'redis' },
  { t: 'healed', at: 4_000, id: 2 },
  ...run(3, 4_000, 4_100),
];
const CONTEXT = { startedAt: new Date('2026-11-30T20:00:00Z'), machine: { cpus: 2, model: 'a <cpu>', node: 'v24' } };

describe('the results of npm run torture', () => {
  it('measure recovery from the healing to the end of the first run that began after it', () => {
    const { faults } = resultOf(1, HISTORY);
    expect(faults.map(({ recoveryMs }) => recoveryMs)).toEqual([700, 100]);
    const row = summaries([resultOf(1, HISTORY)]).find(({ kind }) => kind === 'redis-cut');
    expect(row).toMatchObject({ kind: 'redis-cut', count: 2, recoveryP50: 100, recoveryP99: 700, seeds: [1] });
  });

  it('name violations and every fault in HTML and Markdown, with escaped text', () => {
    const result = resultOf(9, HISTORY);
    expect(result.violations.length).toBeGreaterThan(0);
    const html = htmlReport([result], CONTEXT);
    expect(html).toContain(`${result.violations.length} violations`);
    expect(html).toContain('a &#60;cpu&#62;');
    expect(markdownRows([result], CONTEXT)).toMatch(
      /\| All connections to Redis cut.* \| 2 \| \d+ \| 0\.1 s \| 0\.7 s \| 9 \|/,
    );
  });

  it('have the same faults and promises in docs/reliability.md as in the tool', () => {
    const page = readFileSync(join(PROJECT_ROOT, 'docs/reliability.md'), 'utf8');
    const rows = [...page.matchAll(/^\| (.+?) \| (.+?) \| \d+ \|/gm)].map(([, what, promise]) => [what, promise]);
    expect(rows).toEqual(FAULTS.map(({ what, promise }) => [what, promise]));
  });
});
