import { createHash } from 'node:crypto';
import { createRequire } from 'node:module';
import { readScript, scriptFiles, scriptName } from '../../src/redis/scripts.ts';

const namesBySha = new Map<string, string>();
for (const file of scriptFiles()) namesBySha.set(sha1(readScript(file)), scriptName(file));
for (const { name, content } of bullMqScripts()) namesBySha.set(sha1(content), name);

/**
 * Returns the name under which the cost counters list a request: the script of Tollgate or BullMQ that it runs, the
 * Redis command in lower case otherwise, with the BullMQ queue in front if its first key names one.
 */
export function commandName([command = '', ...args]: readonly string[]): string {
  const name = command.toLowerCase();
  const isScript = name === 'evalsha' || name === 'eval';
  if (!isScript) return withQueue(args[0], name);
  const sha = name === 'eval' ? sha1(args[0] ?? '') : (args[0] ?? '');
  const script = namesBySha.get(sha) ?? (args[2]?.endsWith(':message-rate') ? 'message limiter' : 'other script');
  return withQueue(args[2], name === 'eval' ? `${script} (text)` : script);
}

/** Adds the BullMQ queue of a key, by the prefix of `Keys.queues`. */
function withQueue(key: string | undefined, name: string): string {
  const queue = /:bull}:([^:]+)/.exec(key ?? '')?.[1];
  return queue ? `${queue}: ${name}` : name;
}

/** BullMQ does not export its scripts, so they are read from its files. */
function bullMqScripts(): { readonly name: string; readonly content: string }[] {
  const require = createRequire(import.meta.url);
  const scripts: object = require(require.resolve('bullmq').replace(/index\.js$/, 'scripts/index.js'));
  return Object.values(scripts).filter((one) => typeof one?.content === 'string');
}

function sha1(text: string): string {
  return createHash('sha1').update(text).digest('hex');
}
