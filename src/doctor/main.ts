import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { examine, reportLines } from './doctor.ts';

const USAGE = `Checks the configuration and everything that it names, and says what to do.

  npm run doctor -- [--json] [--token FILE]

  --json         print the report as JSON
  --token FILE   also verify the access token in FILE, or on standard input for "-"

Exit code: 0 if no check failed, 1 if one failed, 2 for wrong arguments.
`;
const STANDARD_INPUT = 0;

function options() {
  try {
    const { values } = parseArgs({
      options: { json: { type: 'boolean' }, token: { type: 'string' }, help: { type: 'boolean', short: 'h' } },
    });
    const token = values.token && readFileSync(values.token === '-' ? STANDARD_INPUT : values.token, 'utf8').trim();
    return { ...values, token: token || undefined };
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n\n${USAGE}`);
    process.exit(2);
  }
}

const { json, token, help } = options();
if (help) {
  process.stdout.write(USAGE);
} else {
  const report = await examine(process.env, { token });
  process.stdout.write(json ? `${JSON.stringify(report, null, 2)}\n` : `${reportLines(report).join('\n')}\n`);
  process.exit(report.ok ? 0 : 1);
}
