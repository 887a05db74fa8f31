import { render } from 'preact';
import { App } from './app.tsx';
import { applyTheme } from './lib/theme.ts';
import { type ConsoleConfig, loadConfig } from './session/config.ts';
import { startSession } from './session/session.ts';
import { Failure } from './ui/state.tsx';

const root = document.querySelector('#root');

/** Shows the sign-in page, or the console if the issuer has a session. */
async function main(): Promise<void> {
  applyTheme();
  if (!root) return;
  let config: ConsoleConfig;
  try {
    config = await loadConfig();
  } catch (error) {
    render(<Failure error={error} retry={() => location.reload()} />, root);
    return;
  }
  await startSession(config);
  render(<App config={config} />, root);
}

void main();
