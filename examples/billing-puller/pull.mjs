import { open, readFile, truncate } from 'node:fs/promises';
import { LedgerFeed } from '@tollgate/client/ledger';

const { TOLLGATE_URL: url, TOLLGATE_SERVICE_TOKEN: token } = process.env;
const [path = 'ledger.jsonl', option] = process.argv.slice(2);

/** Each line is a page: its records and the position after it. */
async function restore() {
  const text = await readFile(path, 'utf8').catch((error) => {
    if (error.code !== 'ENOENT') throw error;
    return '';
  });
  const complete = text.slice(0, text.lastIndexOf('\n') + 1);
  if (complete.length < text.length) await truncate(path, Buffer.byteLength(complete));
  const last = complete.trimEnd().split('\n').at(-1);
  return last ? JSON.parse(last).position : undefined;
}

const from = await restore();
const file = await open(path, 'a');
const stop = new AbortController();
process.once('SIGINT', () => stop.abort());
let count = 0;
try {
  const feed = new LedgerFeed({ url, getToken: () => token });
  for await (const { records, position } of feed.pull({ from, follow: option === '--follow', signal: stop.signal })) {
    await file.write(`${JSON.stringify({ records, position })}\n`);
    await file.datasync();
    count += records.length;
  }
} catch (error) {
  // LEDGER_GAP and LEDGER_CHAIN_BROKEN: check the ledger with GET /v1/usage/verify before you continue.
  if (!stop.signal.aborted) throw error;
} finally {
  await file.close();
}
console.log(`${count} records`);
