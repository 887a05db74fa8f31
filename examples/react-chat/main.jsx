import { TollgateProvider, useConnection, useRun, useThread, useUsage } from '@tollgate/react';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';

const query = new URLSearchParams(location.search);
const options = {
  url: query.get('url') ?? 'http://localhost:8000',
  // Your own server would give the page its token: async () => (await fetch('/my/token')).text()
  getToken: () => query.get('token'),
  storage: sessionStorage,
};

function Chat() {
  const first = useRun();
  if (first.threadId && first.state === 'completed') return <Conversation threadId={first.threadId} />;
  return (
    <>
      <Ask onAsk={(message) => first.start(message)} disabled={first.state === 'running'} />
      <p>{first.error?.message ?? first.text}</p>
      <Inputs inputs={first.inputs} respond={first.respond} />
    </>
  );
}

/** What a run asks its user: the run waits for the answer. A form is left to other clients of the user. */
function Inputs({ inputs, respond }) {
  return inputs.map((input) => (
    <fieldset key={input.input_id} disabled={input.isSending}>
      <legend>{input.message}</legend>
      {input.kind === 'approval' && (
        <>
          <code>
            {input.tool_name} {JSON.stringify(input.arguments)}
          </code>
          <button type="button" onClick={() => respond(input, { action: 'accept' })}>
            Allow
          </button>
        </>
      )}
      {input.choices?.map((choice) => (
        <button type="button" key={choice} onClick={() => respond(input, { action: 'accept', content: { choice } })}>
          {choice}
        </button>
      ))}
      <button type="button" onClick={() => respond(input, { action: 'decline' })}>
        Decline
      </button>
      {input.error?.message}
    </fieldset>
  ));
}

function Conversation({ threadId }) {
  const { messages, send, respond, run } = useThread(threadId);
  return (
    <>
      <ul>
        {messages.map(({ id, role, text }) => (
          <li key={id} className={role}>
            {text}
          </li>
        ))}
      </ul>
      {run.state === 'running' && <p>{run.text}</p>}
      {run.error && <p>{run.error.message}</p>}
      <Inputs inputs={run.inputs} respond={respond} />
      <Ask onAsk={send} disabled={run.state === 'running'} />
    </>
  );
}

function Ask({ onAsk, disabled }) {
  return (
    <form action={(form) => onAsk(form.get('message'))}>
      <input name="message" placeholder="message" required />
      <button type="submit" disabled={disabled}>
        Ask
      </button>
    </form>
  );
}

function Status() {
  const { state, identity, error } = useConnection();
  const { usage } = useUsage();
  return (
    <p>
      {state} {identity?.plan} {error?.message} {usage && `${usage.today.calls} calls today`}
    </p>
  );
}

createRoot(document.querySelector('#root')).render(
  <StrictMode>
    <TollgateProvider options={options}>
      <Chat />
      <Status />
    </TollgateProvider>
  </StrictMode>,
);
