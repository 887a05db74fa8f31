import { resolve } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { buildConsole } from './lib/console-build.ts';
import { DEMO_PLANS, stateDirArgument } from './lib/dev-access.ts';
import { type Deployment, DevDeployment } from './lib/dev-deployment.ts';
import { DEFAULT_STATE_DIR } from './lib/dev-state.ts';
import { HAPROXY_GATEWAYS } from './lib/haproxy.ts';
import { PROJECT_ROOT } from './lib/processes.ts';
import { duration, Steps } from './lib/steps.ts';
import { onStopSignals } from './lib/stop-signals.ts';
import { table } from './lib/table.ts';
import { describeFailure } from './lib/user-error.ts';

const EXIT_KILLED = 130;

interface Flags {
  readonly nodes: number;
  readonly workers: number;
  readonly balancer: boolean;
  readonly balancerPort: number;
  readonly port: number;
  readonly authPort: number;
  readonly workerPort: number;
  readonly stateDir: string;
  readonly verbose: boolean;
}

function integer(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (Number.isInteger(value) && value >= min && value <= max) return value;
    throw new InvalidArgumentError(`must be a whole number from ${min} to ${max}.`);
  };
}

function parseFlags(argv: readonly string[]): Flags {
  const port = (flag: string, text: string, variable: string, fallback: number) =>
    new Option(`${flag} <port>`, text).env(variable).argParser(integer(1, 65_500)).default(fallback);
  const command = new Command('npm start --')
    .description('Runs Tollgate on this machine: Redis, the auth service, workers and gateways, until Ctrl-C.')
    .addOption(new Option('--nodes <n>', 'number of gateways').argParser(integer(1, 32)).default(2))
    .addOption(new Option('--workers <n>', 'number of workers').argParser(integer(1, 32)).default(1))
    .option('--balancer', `HAProxy in front of ${HAPROXY_GATEWAYS} gateways, if it is installed`, false)
    .addOption(port('--balancer-port', 'port of HAProxy', 'BALANCER_PORT', 8_080))
    .addOption(port('--port', 'port of the first gateway; the others follow', 'PORT', 8_000))
    .addOption(port('--auth-port', 'port of the auth service', 'AUTH_PORT', 8_081))
    .addOption(
      port('--worker-port', "port of the first worker's health and metrics; the others follow", 'WORKER_PORT', 8_090),
    )
    .addOption(
      new Option('--state-dir <dir>', 'folder of secrets and data')
        .env('TOLLGATE_STATE_DIR')
        .default(resolve(PROJECT_ROOT, DEFAULT_STATE_DIR), DEFAULT_STATE_DIR),
    )
    .option('--verbose', 'show every log line of every process', false)
    .parse([...argv], { from: 'user' });
  const flags = command.opts<Flags>();
  if (flags.balancer && flags.nodes !== HAPROXY_GATEWAYS) {
    command.error(
      `error: deploy/haproxy/haproxy.cfg names ${HAPROXY_GATEWAYS} gateways: --balancer needs --nodes ${HAPROXY_GATEWAYS}.`,
    );
  }
  return flags;
}

function summary(running: Deployment, stateDir: string): string {
  const { gatewayPorts, workerPorts, authPort, balancerPort, redisUrl, secrets } = running;
  const own = stateDirArgument(stateDir);
  const url = (port: number | undefined, path = '') => `http://localhost:${port}${path}`;
  const addresses = [
    ...(balancerPort === undefined ? [] : [['Load balancer', url(balancerPort)]]),
    ['Gateways', gatewayPorts.map((port) => url(port)).join('  ')],
    ['Console', url(balancerPort ?? gatewayPorts[0], '/console')],
    ['Auth service', url(authPort)],
    [workerPorts.length > 1 ? 'Workers' : 'Worker', workerPorts.map((port) => url(port, '/health/ready')).join('  ')],
    ['Redis', withoutCredentials(redisUrl)],
  ];
  const accounts = [
    ...DEMO_PLANS.map((plan) => [`plan ${plan}`, `${plan}@demo.local`, secrets.demo_password]),
    ['console', 'admin@demo.local', secrets.demo_password],
    ['console, read only', 'viewer@demo.local', secrets.demo_password],
  ];
  return [
    ...addresses.map(([name, address]) => `  ${name?.padEnd(14)}${address}`),
    '',
    table(['For', 'Demo account', 'Password'], accounts).replace(/^/gm, '  '),
    '',
    `  Next, in a second terminal:  npm run chat --${own} "How is my workload doing?"`,
    `  Then the bill:               npm run bill${own && ` --${own}`}`,
    `  Or a load test:              npm run load --${own} --users 200 --turns 20/s --duration 30`,
    '  Stop everything:             Ctrl-C',
  ].join('\n');
}

async function main(): Promise<void> {
  const startedAt = performance.now();
  const flags = parseFlags(process.argv.slice(2));
  const steps = new Steps(process.stdout);
  const options = {
    ...flags,
    balancerPort: flags.balancer ? flags.balancerPort : undefined,
    stateDir: resolve(flags.stateDir),
    env: process.env,
  };
  const deployment = new DevDeployment(options, steps);
  let stopping = false;
  const stop = async (exitCode: number) => {
    stopping = true;
    await deployment.stop().catch((error) => steps.fail(describeFailure(error)));
    steps.plain('Stopped.');
    process.exit(exitCode);
  };
  onStopSignals(
    () => {
      steps.plain('Stopping … (Ctrl-C again to end everything at once)');
      void stop(0);
    },
    () => {
      deployment.kill();
      process.exit(EXIT_KILLED);
    },
  );
  try {
    const consoleFailure = consoleBuild();
    const running = await deployment.start();
    const failure = await consoleFailure;
    if (stopping) return;
    if (failure !== undefined) steps.note(`The console could not be built: ${describeFailure(failure)}`);
    steps.plain(
      `\nTollgate is ready (${duration(performance.now() - startedAt)}).\n\n${summary(running, options.stateDir)}\n`,
    );
  } catch (error) {
    if (stopping) return;
    steps.fail(describeFailure(error));
    await stop(1);
  }
}

await main();

/**
 * Builds the console while the processes start: they look for its files again until they are there.
 * @returns why it could not be built; undefined if it is there
 */
async function consoleBuild(): Promise<unknown> {
  try {
    await buildConsole();
    return undefined;
  } catch (error) {
    return error;
  }
}

/** Returns the Redis URL without credentials, for output. */
function withoutCredentials(url: string): string {
  const [scheme = '', ...rest] = url.split('//');
  const address = rest.join('//');
  return `${scheme}//${address.slice(address.lastIndexOf('@') + 1)}`;
}
