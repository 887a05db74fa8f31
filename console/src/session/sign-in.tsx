import { useState } from 'preact/hooks';
import { Mark } from '../ui/icon.tsx';
import type { ConsoleConfig } from './config.ts';
import { session, signIn } from './session.ts';

/** The only page without a session. It shows nothing of the cluster. */
export function SignIn({ config }: { readonly config: ConsoleConfig }) {
  const [leaving, setLeaving] = useState(false);
  const state = session.value;
  if (state.status === 'starting') {
    return (
      <main class="sign-in">
        <p class="muted" role="status">
          Looking for your session …
        </p>
      </main>
    );
  }
  const message = state.status === 'signed_out' ? state.message : undefined;
  const leave = async () => {
    setLeaving(true);
    await signIn();
    // Back here only if the issuer could not be reached.
    if (session.value.status === 'signed_out' && session.value.message) setLeaving(false);
  };
  return (
    <main class="sign-in">
      <div class="sign-in-card">
        <div class="brand">
          <Mark />
          Tollgate
          <span class="environment">{config.environment}</span>
        </div>
        <div>
          <h1>Sign in to the console</h1>
          <p class="muted">
            You sign in at <span class="mono wrap">{new URL(config.issuer).host}</span>. The console keeps your tokens
            in memory only.
          </p>
        </div>
        {message && (
          <div class="notice" data-tone="warn" role="alert">
            <span class="wrap">{message}</span>
          </div>
        )}
        <button type="button" class="button" data-kind="primary" disabled={leaving} onClick={() => void leave()}>
          {leaving ? 'Going to the issuer …' : 'Sign in'}
        </button>
        {config.demo_accounts && (
          <p class="muted">
            In development, <code>npm start</code> prints the demo accounts and their password.
          </p>
        )}
      </div>
    </main>
  );
}
