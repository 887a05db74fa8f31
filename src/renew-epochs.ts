/**
 * For operators, after Redis was restored from a copy and before clients connect: gives every event log of the
 * deployment that the environment describes a new log epoch. Exit code: 0, 1 if Redis fails, 78 for an invalid
 * configuration.
 */
import { EXIT_CONFIG, loadConfig, UnusableConfiguration } from './config.ts';
import { renewEpochs } from './events/renew-epochs.ts';
import { createLogger } from './lib/logger.ts';
import { connectRedis, disconnectRedis } from './redis/client.ts';
import { Keys } from './redis/keys.ts';

async function main(): Promise<void> {
  const config = loadConfig(process.env);
  const redis = await connectRedis(config, 'commands', createLogger('renew-epochs', 'silent'));
  try {
    const renewed = await renewEpochs({ redis, keys: new Keys(config.REDIS_KEY_PREFIX) });
    process.stdout.write(`${renewed} event logs have a new epoch\n`);
  } finally {
    await disconnectRedis(redis);
  }
}

await main().catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = error instanceof UnusableConfiguration ? EXIT_CONFIG : 1;
});
