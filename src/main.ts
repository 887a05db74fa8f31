import { runProcess } from './process.ts';

// Imported after validation of the configuration, so that configuration errors are reported without delay.
await runProcess(async (config, onDrainRequested) => {
  return (await import('./compose/gateway.ts')).startGateway(config, { onDrainRequested });
});
