import { type Config, EXIT_CONFIG, loadConfig, UnusableConfiguration } from './config.ts';
import { createLogger, logWarnings } from './lib/logger.ts';

/** A started process, as returned by a composition root. */
export interface Running {
  readonly port: number;
  /** Reloads the catalogues; errors in them are logged. */
  reload(): void;
  close(): Promise<void>;
}

/** Exit code that a shell reports for a process ended by SIGTERM: 128 + 15. */
const EXIT_STOPPED_WHILE_STARTING = 143;

/**
 * Runs one Tollgate process until SIGTERM or SIGINT. It validates the configuration first, so that errors are reported
 * before anything is loaded, and then calls `start`, which can stop the process as SIGTERM does. A second signal ends
 * the process at once. So does a signal during the start, when no client is connected yet. SIGHUP reloads the
 * catalogues and never ends the process, not even during the start.
 */
export async function runProcess(start: (config: Config, stop: () => void) => Promise<Running>): Promise<void> {
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
  // Registered before the start: the kernel ignores signals without a handler for PID 1 of a container, so the
  // container would be killed at the end of its grace period.
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
  try {
    running = await start(config, stop);
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
