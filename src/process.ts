import { type Config, EXIT_CONFIG, loadConfig, UnusableConfiguration } from './config.ts';

/** What a composition root hands back. */
export interface Running {
  readonly port: number;
  /** Reads the catalogues again; what is wrong with them goes to the log. */
  reload(): void;
  close(): Promise<void>;
}

/**
 * Runs one Tollgate process: configuration first, so that a mistake in it is reported before anything is loaded or
 * started; then `start`; then until SIGTERM or SIGINT. A second signal ends the process at once. SIGHUP reads the
 * catalogues again, and never ends a process, not even one that is still starting.
 */
export async function runProcess(start: (config: Config) => Promise<Running>): Promise<void> {
  const config = configOrExit();
  let running: Running | undefined;
  process.on('SIGHUP', () => running?.reload());
  try {
    running = await start(config);
  } catch (error) {
    if (error instanceof UnusableConfiguration) exitUnusable(error);
    process.stderr.write(`Cannot start: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exit(1);
  }
  const { close } = running;
  let stopping = false;
  const stop = () => {
    if (stopping) process.exit(1);
    stopping = true;
    close().then(
      () => process.exit(0),
      (error: unknown) => {
        process.stderr.write(`Closing failed: ${error instanceof Error ? error.message : String(error)}\n`);
        process.exit(1);
      },
    );
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
}

function configOrExit(): Config {
  try {
    return loadConfig(process.env);
  } catch (error) {
    if (error instanceof UnusableConfiguration) exitUnusable(error);
    throw error;
  }
}

function exitUnusable({ message }: UnusableConfiguration): never {
  process.stderr.write(message);
  process.exit(EXIT_CONFIG);
}
