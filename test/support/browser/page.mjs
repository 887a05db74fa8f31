/**
 * The page of test/e2e/client.browser.test.ts: one React application whose address selects what it does. It runs in
 * strict mode.
 */
import { Tollgate } from '@tollgate/client';
import { TollgateProvider, useConnection, useRun, useThread, useTollgate, useUsage } from '@tollgate/react';
import { createElement as h, StrictMode, startTransition, useEffect, useLayoutEffect, useState } from 'react';
import { createRoot } from 'react-dom/client';

const query = new URLSearchParams(location.search);
const options = {
  url: query.get('url'),
  getToken: () => query.get('token'),
  storage: sessionStorage,
  shareTabs: query.has('share'),
  transport: query.get('transport') ?? undefined,
  backoff: { firstMs: 50, maxMs: 200 },
};

/** Everything that the tab has received, also before it was loaded again, for the test. */
const received = { seqs: JSON.parse(sessionStorage.getItem('seqs') ?? '[]'), tears: 0, commits: 0 };
Object.assign(globalThis, { received });
const receive = ({ seq }) => {
  // The test of the heap keeps no record of its own.
  if (query.has('quiet')) return;
  received.seqs.push(seq);
  sessionStorage.setItem('seqs', JSON.stringify(received.seqs));
};

function Chat() {
  const client = useTollgate();
  const connection = useConnection();
  const run = useRun();
  const { usage } = useUsage();
  useEffect(() => client.on('event', receive), [client]);
  return h(
    'main',
    null,
    h('button', { id: 'ask', type: 'button', onClick: () => run.start('How is my workload doing?') }, 'Ask'),
    h('p', { id: 'state' }, connection.state),
    h('p', { id: 'plan' }, connection.identity?.plan),
    h('p', { id: 'run' }, run.state),
    h('p', { id: 'run-id' }, run.runId),
    h('p', { id: 'text' }, run.text),
    h('p', { id: 'count' }, run.eventCount),
    h('p', { id: 'error' }, run.error?.code),
    h('p', { id: 'calls' }, usage?.today?.calls),
    run.inputs.map((input) => h(Input, { key: input.input_id, input, respond: run.respond })),
    run.threadId && h(Thread, { id: run.threadId }),
  );
}

function Input({ input, respond }) {
  const answer = (choice) => respond(input, { action: 'accept', content: { choice } });
  const buttons = [...input.choices, 'none of these'].map((choice) =>
    h('button', { key: choice, type: 'button', onClick: () => answer(choice) }, choice),
  );
  return h('fieldset', { disabled: input.isSending }, h('legend', null, input.message), buttons, input.error?.code);
}

function Thread({ id }) {
  const { messages, send, run } = useThread(id);
  return h(
    'section',
    null,
    h('button', { id: 'send', type: 'button', onClick: () => send('And now?') }, 'Send'),
    h('p', { id: 'thread-run' }, run.state),
    messages.map((turn) => h('article', { key: turn.id }, `${turn.role}: ${turn.text}`)),
  );
}

/** Children that take so long to render that React yields between them, while the state of the connection changes. */
function Concurrent() {
  const client = useTollgate();
  const [generation, setGeneration] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => {
      startTransition(() => setGeneration((value) => value + 1));
      if (client.state === 'stopped' || client.state === 'idle') client.connect();
      else client.close();
    }, 60);
    return () => clearInterval(timer);
  }, [client]);
  return Array.from({ length: 15 }, (_, index) => h(Child, { key: index, generation }));
}

/** Runs after the whole commit is in the document. */
function checkCommit() {
  const states = new Set(Array.from(document.querySelectorAll('.child'), (child) => child.textContent));
  received.commits += 1;
  if (states.size > 1) received.tears += 1;
}

function Child() {
  const { state } = useConnection();
  useLayoutEffect(checkCommit);
  const until = performance.now() + 1;
  while (performance.now() < until);
  return h('p', { className: 'child' }, state);
}

if (query.get('page') === 'plain') {
  const client = new Tollgate(options);
  client.on('event', receive);
  Object.assign(globalThis, { client });
  client.connect();
} else {
  const page = query.get('page') === 'concurrent' ? Concurrent : Chat;
  createRoot(document.querySelector('#root')).render(h(StrictMode, null, h(TollgateProvider, { options }, h(page))));
}
