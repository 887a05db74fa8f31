import { runProcess } from '../src/process.ts';

// Loaded only once the configuration has been found sound: a mistake in it shows at once.
await runProcess(async (config) => (await import('./worker.ts')).startWorker(config));
