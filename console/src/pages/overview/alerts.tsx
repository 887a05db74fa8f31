import type { Alert } from '../../api/types.ts';
import { shortCount } from '../../lib/format.ts';
import { href } from '../../lib/router.ts';
import { Badge } from '../../ui/badge.tsx';
import { Time } from '../../ui/text.tsx';

/** The alerts that fire now, each with what to do. */
export function Alerts({ alerts }: { readonly alerts: readonly Alert[] | undefined }) {
  if (alerts === undefined) return null;
  if (alerts.length === 0) {
    return (
      <div class="notice" data-tone="ok">
        <span>No alert fires.</span>
      </div>
    );
  }
  return (
    <ul class="stack tight" aria-label="Alerts">
      {alerts.map((alert) => (
        <li key={alert.name} class="notice" data-tone={alert.severity === 'critical' ? 'bad' : 'warn'}>
          <div>
            <Badge tone={alert.severity === 'critical' ? 'bad' : 'warn'}>{alert.severity}</Badge>{' '}
            <strong>{alert.summary}</strong>{' '}
            <span class="muted">
              {figure(alert)}since <Time at={alert.since} />
            </span>
          </div>
          <a href={href(['runbook', runbookSection(alert.runbook)])}>What to do</a>
        </li>
      ))}
    </ul>
  );
}

function figure({ value, threshold, unit }: Alert): string {
  if (value === null) return '';
  const limit = threshold === null ? '' : `, threshold ${shortCount(threshold)} ${unit ?? ''}`;
  return `${shortCount(value)} ${unit ?? ''}${limit}, `;
}

function runbookSection(address: string): string {
  return address.split('#')[1] ?? '';
}
