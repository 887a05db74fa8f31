import { useEffect, useMemo, useState } from 'preact/hooks';
import { LiveFigures } from '../../api/live.ts';
import type { Counts, Overview as Figures } from '../../api/types.ts';
import { bytes, count, duration, NONE, plural, shortCount } from '../../lib/format.ts';
import { href } from '../../lib/router.ts';
import { useConfig } from '../../session/config.ts';
import { Badge, type Tone } from '../../ui/badge.tsx';
import { Icon } from '../../ui/icon.tsx';
import { Page, Panel, Segments, Tile } from '../../ui/page.tsx';
import { Empty, Failure } from '../../ui/state.tsx';
import { Alerts } from './alerts.tsx';
import { type Period, SeriesCharts } from './series.tsx';

const PERIODS = [
  { value: 'hour', title: 'Last hour' },
  { value: 'day', title: 'Last day' },
  { value: 'month', title: 'Last month' },
] as const;
const LIVE: Readonly<Record<string, { readonly text: string; readonly tone: Tone }>> = {
  connecting: { text: 'connecting', tone: 'warn' },
  live: { text: 'live', tone: 'ok' },
  polling: { text: 'every 5 s', tone: 'accent' },
  offline: { text: 'reconnecting', tone: 'bad' },
};
/** Above these the figure is marked. They are those of the alerts, where one exists. */
const SLOW_REDIS_MS = 50;
const SLOW_LOOP_MS = 100;
const LATE_LEDGER_SECONDS = 60;

export function Overview() {
  const live = useMemo(() => new LiveFigures(), []);
  useEffect(() => live.start(), [live]);
  const [period, setPeriod] = useState<Period>('hour');
  const { prometheus } = useConfig().links;
  const state = LIVE[live.state.value];
  const figures = live.overview.value;
  return (
    <Page
      title="Overview"
      about="The state of the cluster now, and its history."
      actions={
        <>
          <Badge tone={state?.tone}>{state?.text}</Badge>
          {prometheus && (
            <a class="button" data-size="small" href={prometheus} target="_blank" rel="noreferrer">
              Prometheus <Icon name="external" />
            </a>
          )}
        </>
      }
    >
      {live.error.value !== undefined && <Failure error={live.error.value} />}
      <Alerts alerts={live.alerts.value} />
      {figures ? <Tiles figures={figures} /> : <div class="state">Waiting for the first figures …</div>}
      <div class="row spread">
        <h2>History</h2>
        <Segments label="Period" options={PERIODS} value={period} onChange={setPeriod} />
      </div>
      <SeriesCharts period={period} />
      {figures && <Breakdowns figures={figures} />}
    </Page>
  );
}

function Tiles({ figures }: { readonly figures: Figures }) {
  const { connections, per_second, first_event, redis, ledger, queue, event_loop, memory, last_minute } = figures;
  const refusals = Object.values(figures.refusals).reduce((sum, value) => sum + value, 0);
  const lag = ledger.lag_seconds;
  return (
    <dl class="tiles">
      <Tile
        label="Connections"
        value={count(connections.total)}
        note={`${plural(figures.gateways, 'gateway')}, ${plural(figures.workers, 'worker')}`}
      />
      <Tile label="Messages" value={shortCount(per_second.messages)} unit="/s" />
      <Tile label="Events" value={shortCount(per_second.events)} unit="/s" />
      <Tile
        label="Runs"
        value={shortCount(per_second.runs)}
        unit="/s"
        note={`${count(last_minute.runs_failed)} failed in the last minute`}
        tone={last_minute.runs_failed > 0 ? 'warn' : undefined}
      />
      <Tile
        label="First event, p99"
        value={duration(first_event.p99_ms)}
        note={`p50 ${duration(first_event.p50_ms)}, ${count(first_event.count)} runs`}
      />
      <Tile label="Runs waiting" value={count(queue.runs)} />
      <Tile
        label="Ledger lag"
        value={lag === null ? NONE : duration(lag * 1_000)}
        tone={lag !== null && lag > LATE_LEDGER_SECONDS ? 'bad' : undefined}
        note={`${shortCount(per_second.usage_records)}/s recorded`}
      />
      <Tile
        label="Redis, p99"
        value={duration(redis.p99_ms)}
        note={`p50 ${duration(redis.p50_ms)}, ${count(redis.failures)} failures`}
        tone={redis.failures > 0 ? 'bad' : (redis.p99_ms ?? 0) > SLOW_REDIS_MS ? 'warn' : undefined}
      />
      <Tile
        label="Refused, last minute"
        value={<a href={href('users', { view: 'refused' })}>{count(refusals)}</a>}
        note={
          <>
            {count(last_minute.evictions)} evictions, {count(last_minute.resumes)} resumes
          </>
        }
      />
      <Tile
        label="Token refreshes, last minute"
        value={count(last_minute.refreshes)}
        note={`${count(last_minute.refresh_failures)} failed`}
        tone={last_minute.refresh_failures > 0 ? 'warn' : undefined}
      />
      <Tile
        label="Event loop, p99"
        value={duration(event_loop.p99_ms)}
        tone={(event_loop.p99_ms ?? 0) > SLOW_LOOP_MS ? 'warn' : undefined}
        note={`${bytes(memory.rss_bytes)} in all processes`}
      />
      <Breakers breakers={figures.breakers} />
    </dl>
  );
}

function Breakers({ breakers }: { readonly breakers: Readonly<Record<string, string>> }) {
  const open = Object.entries(breakers).filter(([, state]) => state !== 'closed');
  return (
    <Tile
      label="Circuit breakers"
      value={open.length === 0 ? 'closed' : `${open.length} open`}
      tone={open.length > 0 ? 'bad' : undefined}
      note={open.length > 0 ? open.map(([name]) => name).join(', ') : Object.keys(breakers).join(', ')}
    />
  );
}

function Breakdowns({ figures }: { readonly figures: Figures }) {
  const { by_plan, by_transport, by_node } = figures.connections;
  return (
    <div class="columns thirds">
      <Breakdown title="Connections by plan" counts={by_plan} />
      <Breakdown title="Connections by transport" counts={by_transport} />
      <Breakdown title="Connections by node" counts={by_node} link={{ title: 'All nodes', href: href('nodes') }} />
      <Breakdown
        title="Refusals in the last minute"
        counts={figures.refusals}
        empty="Nothing was refused"
        link={{ title: 'Users refused lately', href: href('users', { view: 'refused' }) }}
        hrefOf={(code) => href('users', { view: 'refused', code })}
      />
    </div>
  );
}

interface BreakdownProps {
  readonly title: string;
  readonly counts: Counts;
  readonly link?: { readonly title: string; readonly href: string };
  /** Where a row leads. */
  readonly hrefOf?: (name: string) => string;
  readonly empty?: string;
}

function Breakdown({ title, counts, link, hrefOf, empty = 'No connections' }: BreakdownProps) {
  const rows = Object.entries(counts).toSorted(([, one], [, other]) => other - one);
  const largest = Math.max(1, ...rows.map(([, value]) => value));
  return (
    <Panel title={title} actions={link && <a href={link.href}>{link.title}</a>}>
      {rows.length === 0 ? (
        <Empty title={empty} />
      ) : (
        <ul class="bars">
          {rows.map(([name, value]) => (
            <li key={name}>
              {hrefOf ? (
                <a href={hrefOf(name)}>
                  <bdi class="wrap">{name}</bdi>
                </a>
              ) : (
                <bdi class="wrap">{name}</bdi>
              )}
              <span class="number">{count(value)}</span>
              <progress max={largest} value={value} aria-label={name} />
            </li>
          ))}
        </ul>
      )}
    </Panel>
  );
}
