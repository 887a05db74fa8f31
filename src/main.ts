import { runProcess } from './process.ts';

// Loaded only once the configuration has been found sound: a mistake in it shows at once.
await runProcess(async (config) => (await import('./compose/gateway.ts')).startGateway(config));
