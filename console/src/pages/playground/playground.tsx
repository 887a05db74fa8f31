import './playground.css';
import { useEffect, useState } from 'preact/hooks';
import { useResource } from '../../lib/resource.ts';
import { Page, Segments } from '../../ui/page.tsx';
import { Empty, Failure } from '../../ui/state.tsx';
import { loadAgents } from './agents.ts';
import { Chat } from './chat.tsx';
import { ConnectionBar } from './connection-bar.tsx';
import { PlaygroundController, prepareTransport, type TransportName } from './controller.ts';
import { Experiments } from './experiments.tsx';
import { Frames } from './frames.tsx';
import { Timeline } from './timeline.tsx';
import type { Turn } from './turns.ts';

const TRANSPORTS = [
  { value: 'websocket', title: 'WebSocket' },
  { value: 'socketio', title: 'Socket.IO' },
  { value: 'sse', title: 'SSE' },
] as const;

/** The chat survives a visit of another page; the connection does not. */
let keptTurns: readonly Turn[] = [];

export function Playground() {
  const [transport, setTransport] = useState<TransportName>('websocket');
  const [agent, setAgent] = useState('');
  const { controller, error } = useController(transport);
  const agents = useResource('agents', loadAgents);
  return (
    <Page
      title="Playground"
      about="Run an agent as your own user, over the client that applications use, and see every event."
      actions={
        <>
          <label class="row">
            <span class="muted">Agent</span>
            <select class="input agent-select" value={agent} onChange={(event) => setAgent(event.currentTarget.value)}>
              <option value="">default</option>
              {agents.data?.map(({ name }) => (
                <option key={name} value={name}>
                  {name}
                </option>
              ))}
            </select>
          </label>
          <Segments label="Transport" options={TRANSPORTS} value={transport} onChange={setTransport} />
        </>
      }
    >
      {error !== undefined && <Failure error={error} />}
      {controller && <Workbench controller={controller} agent={agent} />}
    </Page>
  );
}

function Workbench({ controller, agent }: { readonly controller: PlaygroundController; readonly agent: string }) {
  const [chosen, setChosen] = useState<string>();
  const turns = controller.turns.value;
  const selected = turns.find(({ requestId }) => requestId === chosen) ?? turns.at(-1);
  return (
    <>
      <ConnectionBar controller={controller} />
      <div class="workbench">
        <Chat controller={controller} agent={agent} selected={selected?.requestId} onSelect={setChosen} />
        <section class="panel timeline-panel">
          <div class="panel-head">
            <h2>Timeline of the run</h2>
            {selected?.runId && <span class="mono muted">{selected.runId}</span>}
          </div>
          {selected ? (
            <Timeline turn={selected} controller={controller} />
          ) : (
            <Empty title="No run yet">Each event appears here as it arrives, with its time after the request.</Empty>
          )}
        </section>
      </div>
      <Experiments controller={controller} />
      <Frames frames={controller.tap.frames} />
    </>
  );
}

/** One controller per transport. It is closed when another one is chosen, or another page is opened. */
function useController(transport: TransportName): { controller?: PlaygroundController; error?: unknown } {
  const [state, setState] = useState<{ controller?: PlaygroundController; error?: unknown }>({});
  useEffect(() => {
    let wanted = true;
    let controller: PlaygroundController | undefined;
    prepareTransport(transport).then(
      () => {
        if (!wanted) return;
        controller = new PlaygroundController(transport, keptTurns);
        controller.connect();
        setState({ controller });
      },
      (error: unknown) => wanted && setState({ error }),
    );
    return () => {
      wanted = false;
      keptTurns = controller?.turns.value ?? keptTurns;
      controller?.close();
    };
  }, [transport]);
  return state;
}
