import type { ComponentChildren } from 'preact';

export type Tone = 'ok' | 'warn' | 'bad' | 'accent' | undefined;

export function Badge({ tone, plain, children }: { tone?: Tone; plain?: boolean; children: ComponentChildren }) {
  return (
    <span class="badge" data-tone={tone} data-plain={plain || undefined}>
      {children}
    </span>
  );
}

const TONES: Readonly<Record<string, Tone>> = {
  active: 'ok',
  live: 'ok',
  ready: 'ok',
  healthy: 'ok',
  closed: 'ok',
  completed: 'ok',
  success: 'ok',
  ok: 'ok',
  up: 'ok',
  connected: 'ok',
  available: 'ok',
  running: 'accent',
  queued: 'accent',
  open: 'accent',
  waiting: 'warn',
  delayed: 'warn',
  draining: 'warn',
  degraded: 'warn',
  connecting: 'warn',
  half_open: 'warn',
  warning: 'warn',
  failed: 'bad',
  error: 'bad',
  blocked: 'bad',
  critical: 'bad',
  down: 'bad',
  refused: 'bad',
  unavailable: 'bad',
  stopped: 'bad',
};

/** A status of the gateway in its colour; the word carries the meaning. */
export function Status({ value }: { readonly value: string | null | undefined }) {
  if (!value) return <>–</>;
  return <Badge tone={TONES[value]}>{value.replaceAll('_', ' ')}</Badge>;
}
