import { useEffect, useRef, useState } from 'preact/hooks';
import { request } from '../../api/http.ts';
import type { UsageWindow, Verification } from '../../api/types.ts';
import { count, plural } from '../../lib/format.ts';
import { Badge } from '../../ui/badge.tsx';
import { Panel } from '../../ui/page.tsx';
import { Failure } from '../../ui/state.tsx';
import { addHours } from './periods.ts';

interface Progress {
  readonly done: number;
  readonly total: number;
  readonly records: number;
  readonly window: string;
  readonly problem: Verification['problem'];
  readonly error?: unknown;
  readonly state: 'running' | 'ended' | 'stopped';
}

/** Recomputes hash chain, windows and tallies, one window after the other, up to the first contradiction. */
export function Verify({ windows }: { readonly windows: readonly UsageWindow[] }) {
  const [progress, setProgress] = useState<Progress>();
  const running = useRef<AbortController | undefined>(undefined);
  useEffect(() => () => running.current?.abort(), []);
  const hours = [...new Set(windows.map(({ window }) => window))].toSorted();
  const start = () => {
    running.current?.abort();
    running.current = new AbortController();
    void verify(hours, running.current.signal, setProgress);
  };
  const isRunning = progress?.state === 'running';
  return (
    <Panel
      title="Verification"
      actions={
        isRunning ? (
          <button type="button" class="button" data-size="small" onClick={() => running.current?.abort()}>
            Stop
          </button>
        ) : (
          <button
            type="button"
            class="button"
            data-kind="primary"
            data-size="small"
            disabled={hours.length === 0}
            onClick={start}
          >
            Verify {plural(hours.length, 'window')}
          </button>
        )
      }
    >
      <div class="stack" role="status" data-testid="verification">
        {progress ? (
          <Outcome progress={progress} />
        ) : (
          <p class="muted">
            Each record contains the hash of the one before it. Verification recomputes the chain, the windows and the
            tallies, and names the first record that does not fit.
          </p>
        )}
      </div>
    </Panel>
  );
}

async function verify(
  hours: readonly string[],
  signal: AbortSignal,
  show: (progress: Progress) => void,
): Promise<void> {
  let progress: Progress = {
    done: 0,
    total: hours.length,
    records: 0,
    window: hours[0] ?? '',
    problem: null,
    state: 'running',
  };
  const update = (changes: Partial<Progress>) => {
    progress = { ...progress, ...changes };
    show(progress);
  };
  try {
    for (const window of hours) {
      update({ window });
      const query = { from: window, to: addHours(window, 1).slice(0, 13) };
      const { ok, problem, checked_records } = await request<Verification>('/v1/usage/verify', { query, signal });
      update({ done: progress.done + 1, records: progress.records + checked_records });
      if (!ok) return update({ problem, state: 'ended' });
    }
    update({ state: 'ended' });
  } catch (error) {
    update(signal.aborted ? { state: 'stopped' } : { error, state: 'stopped' });
  }
}

function Outcome({ progress }: { readonly progress: Progress }) {
  const { done, total, records, window, problem, error, state } = progress;
  return (
    <>
      <progress max={total} value={done} aria-label="Progress of the verification" />
      <p>
        {count(done)} of {plural(total, 'window')}, {plural(records, 'record')}
        {state === 'running' && `, now ${window}`}
      </p>
      {error !== undefined && <Failure error={error} />}
      {state === 'stopped' && error === undefined && <p>Stopped.</p>}
      {problem && (
        <div class="notice" data-tone="bad">
          <div>
            <Badge tone="bad">{problem.kind}</Badge> <bdi>{problem.what}</bdi>
            <div class="muted">
              Window {problem.window ?? '–'}, record <span class="mono">{problem.record_id ?? '–'}</span>, sequence{' '}
              {problem.sequence ?? '–'}
            </div>
          </div>
        </div>
      )}
      {state === 'ended' && !problem && (
        <div class="notice" data-tone="ok">
          <span>No contradiction: chain, windows and tallies agree.</span>
        </div>
      )}
    </>
  );
}
