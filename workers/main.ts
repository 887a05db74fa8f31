import { runProcess } from '../src/process.ts';

// Imported after validation of the configuration, so that configuration errors are reported without delay.
await runProcess(async (config, onDrainRequested) => {
  return (await import('./worker.ts')).startWorker(config, { onDrainRequested });
});
