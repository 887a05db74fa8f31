import { type Config, EXIT_CONFIG, loadConfig, UnusableConfiguration } from '../config.ts';

/** The process of the reference auth service: configuration first, so that a wrong one is told before anything starts. */
async function main(): Promise<void> {
  const config = loadConfig(process.env);
  const service = await start(config);
  const stop = () => {
    service.close().then(
      () => process.exit(0),
      (error) => fail(error),
    );
  };
  process.once('SIGTERM', stop);
  process.once('SIGINT', stop);
  process.on('SIGHUP', () => service.reload());
  // Last: who waits for this line may send a signal at once.
  process.stdout.write(`auth service: http://localhost:${service.port}\n`);
}

async function start(config: Config) {
  const { startAuthService } = await import('./server.ts');
  return startAuthService(config);
}

function fail(error: unknown): never {
  process.stderr.write(`${error instanceof Error ? error.message : error}\n`);
  process.exit(error instanceof UnusableConfiguration ? EXIT_CONFIG : 1);
}

main().catch(fail);
