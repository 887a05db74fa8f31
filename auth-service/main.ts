import { runProcess } from '../src/process.ts';

// Loaded only once the configuration has been found sound: a mistake in it shows at once.
await runProcess(async (config) => {
  const service = await (await import('./server.ts')).startAuthService(config);
  process.stdout.write(`auth service: http://localhost:${service.port}\n`);
  return service;
});
