import { readFileSync, writeFileSync } from 'node:fs';
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
  console.log(`started ${runId}`);
  // The system suspends the application. Closing stores the position; the run continues in the gateway.
  tollgate.close();
} else {
  tollgate.on('event', ({ type, final_response }) => {
    console.log(type, final_response ?? '');
    if (type === 'agent_completed' || type === 'agent_failed') tollgate.close();
  });
  tollgate.connect();
}
