import { type Config, EXIT_CONFIG, loadConfig, UnusableConfiguration } from './config.ts';
import { createLogger, logWarnings } from './lib/logger.ts';

/** What a composition root hands back. */
export interface Running {
  readonly port: number;
  /** Reads the catalogues again; what is wrong with them goes to the log. */
  reload(): void;
  close(): Promise<void>;
}

/** As a shell would give it for a process that the signal ended: 128 + SIGTERM. */
const EXIT_STOPPED_WHILE_STARTING = 143;

/**
 * Runs one Tollgate process: configuration first, so that a mistake in it is reported before anything is loaded or
 * started; then `start`; then until SIGTERM or SIGINT. A second signal ends the process at once, and so does one that
 * comes before there is anything to close: nobody is connected yet. SIGHUP reads the catalogues again, and never ends a
 * process, not even one that is still starting.
 */
export async function runProcess(start: (config: Config) => Promise<Running>): Promise<void> {
  const config = configOrExit();
  logWarnings(createLogger('process', config.LOG_LEVEL));
  let running: Running | undefined;
  process.on('SIGHUP', () => running?.reload());
  let stopping = false;
  const stop = () => {
    if (!running) process.exit(EXIT_STOPPED_WHILE_STARTING);
    if (stopping) process.exit(1);
    stopping = true;
    running.close().then(
      () => process.exit(0),
      (error: unknown) => {
        process.stderr.write(`Closing failed: ${error instanceof Error ? error.message : String(error)}\n`);
        process.exit(1);
      },
    );
  };
  // Before the start: for PID 1 of a container the kernel ignores a signal that has no handler, and the container would
  // be killed when its grace period is over.
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
  try {
    running = await start(config);
  } catch (error) {
    if (error instanceof UnusableConfiguration) exitUnusable(error);
    process.stderr.write(`Cannot start: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exit(1);
  }
}

function configOrExit(): Config {
  try {
    return loadConfig(process.env);
  } catch (error) {
    if (!(error instanceof UnusableConfiguration)) throw error;
    return exitUnusable(error);
  }
}

function exitUnusable({ message }: UnusableConfiguration): never {
  process.stderr.write(message);
  process.exit(EXIT_CONFIG);
}
