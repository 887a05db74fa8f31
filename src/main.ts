import { runProcess } from './process.ts';

// Imported after validation of the configuration, so that configuration errors are reported without delay.
await runProcess(async (config) => (await import('./compose/gateway.ts')).startGateway(config));
