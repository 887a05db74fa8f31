import { runProcess } from '../src/process.ts';

// Imported after validation of the configuration, so that configuration errors are reported without delay.
await runProcess(async (config) => {
  const service = await (await import('./server.ts')).startAuthService(config);
  process.stdout.write(`auth service: http://localhost:${service.port}\n`);
  return service;
});
