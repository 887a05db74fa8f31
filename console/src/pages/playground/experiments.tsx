import { useConfig } from '../../session/config.ts';
import { canWrite } from '../../session/session.ts';
import { Badge, Status } from '../../ui/badge.tsx';
import { Panel } from '../../ui/page.tsx';
import type { PlaygroundController } from './controller.ts';

/** What goes wrong in the field, on purpose. */
export function Experiments({ controller }: { readonly controller: PlaygroundController }) {
  const connected = controller.state.value === 'connected';
  const limits = controller.identity.value?.limits;
  const finding = controller.finding.value;
  const others = controller.others.value;
  const isSse = controller.transport === 'sse';
  const cap = limits?.max_connections_per_user;
  const { environment } = useConfig();
  const canKill = canWrite.value && (environment === 'development' || environment === 'test');
  const experiments = [
    { title: 'Drop the connection', run: () => controller.drop(), usable: connected },
    { title: 'Refresh the token', run: () => void controller.refreshToken(), usable: connected },
    {
      title: `Exceed the message limit (${limits?.max_message_rate ?? '–'} per minute)`,
      run: () => void controller.exceedRate(),
      usable: connected && !isSse,
    },
    {
      title: `Exceed the connection cap (${cap ?? '–'})`,
      run: () => controller.exceedConnections(),
      usable: connected,
    },
    ...(canKill ? [{ title: 'Kill the node', run: () => void controller.killNode(), usable: connected }] : []),
  ];
  return (
    <Panel title="Experiments">
      <div class="stack">
        <div class="row">
          {experiments.map(({ title, run, usable }) => (
            <button key={title} type="button" class="button" disabled={!usable} onClick={run}>
              {title}
            </button>
          ))}
        </div>
        {others.length > 0 && (
          <div class="row">
            <span class="muted">Further connections</span>
            {others.map((state, index) => (
              // The connections have a fixed order.
              <Status key={index} value={state} />
            ))}
            <button type="button" class="button" data-size="small" onClick={() => controller.closeOthers()}>
              Close them
            </button>
          </div>
        )}
        <div role="status" data-testid="finding">
          {finding ? (
            <div class="notice" data-tone={finding.tone}>
              <div>
                <Badge tone={finding.tone}>{finding.title}</Badge> <bdi>{finding.text}</bdi>
              </div>
            </div>
          ) : (
            <p class="muted">
              Start a run, drop the connection while it works, and watch the timeline continue without a gap.
            </p>
          )}
        </div>
      </div>
    </Panel>
  );
}
