import { CopilotChat, CopilotKit, useAgent, useCopilotKit, useDefaultRenderTool } from '@copilotkit/react-core/v2';
import '@copilotkit/react-core/v2/styles.css';
import { useEffect, useState } from 'react';
import { createRoot } from 'react-dom/client';

const query = new URLSearchParams(location.search);
const runtimeUrl = `${query.get('url') ?? 'http://localhost:8000'}/v1/copilotkit`;
// Your own server would give the page its token.
const headers = { Authorization: `Bearer ${query.get('token')}` };
const threadId = query.get('thread') ?? 'thread-1';

const RETRY_MS = 500;

/** Connects again after the stream of a run or of the thread has broken, until the run has its end. */
function Reconnect() {
  const { agent } = useAgent({ agentId: 'default' });
  const { copilotkit } = useCopilotKit();
  const [lost, setLost] = useState(0);
  useEffect(() => {
    const subscription = agent.subscribe({
      onRunFailed: () => setLost((times) => times + 1),
      onRunErrorEvent: ({ event }) => {
        if (event.code === 'SERVER_DRAINING') setLost((times) => times + 1);
      },
      onRunFinishedEvent: () => setLost(0),
    });
    return () => subscription.unsubscribe();
  }, [agent]);
  useEffect(() => {
    if (lost === 0) return;
    const timer = setTimeout(() => copilotkit.connectAgent({ agent }).catch(() => setLost(lost + 1)), RETRY_MS);
    return () => clearTimeout(timer);
  }, [agent, copilotkit, lost]);
  return <p id="status">{lost > 0 ? 'reconnecting' : agent.isRunning ? 'running' : 'ready'}</p>;
}

/** Shows the tools of the agent, which run on the side of Tollgate. */
function Tools() {
  useDefaultRenderTool();
  return null;
}

createRoot(document.querySelector('#root')).render(
  <CopilotKit runtimeUrl={runtimeUrl} headers={headers} useSingleEndpoint={false} showDevConsole={false}>
    <CopilotChat agentId="default" threadId={threadId} />
    <Reconnect />
    <Tools />
  </CopilotKit>,
);
