/**
 * The console: logs in at the auth service, connects to this gateway as a browser client does, and shows every event.
 * It keeps the last `seq` and the epoch, so that a lost connection goes on where it broke off.
 */

const element = (id) => document.getElementById(id);
const [state, login, ask, events] = ['state', 'login', 'ask', 'events'].map(element);

/** Events shown; older rows go. */
const ROWS = 500;
const RECONNECT_MS = 1_000;
/** Close codes after which coming back by itself would be wrong: refused, or replaced by a newer connection. */
const FINAL_CODES = new Set([1000, 1008, 4001]);

let token;
let socket;
let position;
let askedAt;
/** The auth service's address, and whether it has demo accounts. */
const config = await (await fetch('config.json')).json();

for (const plan of config.demo_accounts ? ['pro', 'free', 'enterprise', 'developer'] : []) {
  element('accounts').append(new Option(`${plan}@demo.local`));
}
if (!config.demo_accounts) say('this installation has no demo accounts; connect with a client of your own');

login.addEventListener('submit', async (event) => {
  event.preventDefault();
  const { email, password } = Object.fromEntries(new FormData(login));
  try {
    const answer = await fetch(new URL('/auth/login', config.auth_service_url), {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ email, password }),
    });
    if (!answer.ok) return say(answer.status === 429 ? 'too many attempts; wait a little' : 'wrong password');
    ({ access_token: token } = await answer.json());
    position = undefined;
    connect();
  } catch {
    say(`the auth service does not answer at ${config.auth_service_url}`);
  }
});

ask.addEventListener('submit', (event) => {
  event.preventDefault();
  askedAt = performance.now();
  const { message } = Object.fromEntries(new FormData(ask));
  socket.send(JSON.stringify({ type: 'agent_request', payload: { message, request_id: crypto.randomUUID() } }));
});

element('disconnect').addEventListener('click', () => socket?.close(1000));

function connect() {
  const url = new URL('/ws/secure', location.href.replace(/^http/, 'ws'));
  if (position) url.search = new URLSearchParams(position);
  // A browser can send no header: the token travels as a sub-protocol, and the answered one is the plain name.
  socket = new WebSocket(url, ['jwt-auth', `jwt.${base64url(token)}`]);
  socket.addEventListener('message', ({ data }) => received(JSON.parse(data)));
  socket.addEventListener('close', ({ code, reason }) => {
    enable(false);
    const final = FINAL_CODES.has(code);
    say(`closed: ${code} ${reason}${final ? '' : '; coming back'}`);
    if (!final) setTimeout(connect, RECONNECT_MS);
  });
}

function received({ type, payload }) {
  if (type === 'connection_established') {
    enable(true);
    say(`connected as ${payload.user_id} (${payload.plan}) to ${payload.server_id}`);
    position ??= { after: payload.seq, epoch: payload.epoch };
  }
  if (type === 'resume_failed') position = { after: payload.oldest_seq - 1, epoch: payload.epoch };
  if (payload.seq !== undefined && type !== 'connection_established') position.after = payload.seq;
  if (type === 'token_refreshed' && payload.access_token) token = payload.access_token;
  show(type, payload);
}

const SUMMARIES = {
  connection_established: ({ endpoint, permissions }) => `${endpoint}, permissions: ${permissions?.join(', ')}`,
  agent_accepted: ({ run_id }) => run_id,
  agent_started: ({ agent_name }) => agent_name,
  agent_thinking: ({ thought }) => thought,
  agent_reasoning: ({ reasoning }) => reasoning,
  tool_executing: ({ tool_name, arguments: args }) => `${tool_name}(${JSON.stringify(args)})`,
  tool_completed: ({ tool_name, success, error, duration_ms, usage_record_id }) =>
    success ? `${tool_name}: ${duration_ms} ms, billed as ${usage_record_id}` : `${tool_name}: ${error?.message}`,
  agent_completed: ({ final_response }) => final_response,
  agent_failed: ({ error }) => error?.message,
  error: ({ code, message }) => `${code}: ${message}`,
};

function show(type, payload) {
  const row = events.insertRow(0);
  row.className = type;
  const since = askedAt === undefined ? '' : `${(performance.now() - askedAt).toFixed(0)} ms`;
  const summary = SUMMARIES[type]?.(payload) ?? JSON.stringify(payload);
  for (const text of [since, payload.seq ?? '', type, summary]) row.insertCell().textContent = text;
  if (events.rows.length > ROWS) events.deleteRow(-1);
}

function enable(connected) {
  for (const field of ask.elements) field.disabled = !connected;
  element('disconnect').disabled = !connected;
}

function say(text) {
  state.textContent = text;
}

function base64url(text) {
  return btoa(text).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}
