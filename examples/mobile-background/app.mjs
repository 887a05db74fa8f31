import { readFileSync, writeFileSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { Tollgate } from '@tollgate/client';

const { TOLLGATE_URL: url, TOLLGATE_TOKEN: token } = process.env;
const [command, message] = process.argv.slice(2);
const FILE = 'position.json';

/** One file per key would do as well; this application has one user. */
const storage = {
  getItem: () => {
    try {
      return readFileSync(FILE, 'utf8');
    } catch {
      return null;
    }
  },
  setItem: (_, value) => writeFileSync(FILE, value),
};

const tollgate = new Tollgate({ url, getToken: () => token, storage });
tollgate.on('lost', (reason) => console.log(`Events are no longer in the log: ${reason}`));

if (command === 'ask') {
  const { runId } = await tollgate.run(message).accepted;
  writeFileSync('run.txt', runId);
  console.log(`started ${runId}`);
  // The system suspends the application. Closing stores the position; the run continues in the gateway.
  tollgate.close();
} else {
  // The events since then come first. If the run had ended before the application was suspended, there are none.
  tollgate.on('event', ({ type }) => console.log(type));
  const ended = ['completed', 'failed', 'cancelled', 'unknown'];
  for (;;) {
    const { status, final_response } = await tollgate.runStatus(readFileSync('run.txt', 'utf8'));
    if (ended.includes(status)) {
      console.log(status, final_response ?? '');
      break;
    }
    await setTimeout(1_000);
  }
  tollgate.close();
}
