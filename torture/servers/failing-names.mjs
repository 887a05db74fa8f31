import dns from 'node:dns';
import { existsSync } from 'node:fs';

/**
 * Loaded before a process of the deployment (`NODE_OPTIONS=--import`): the name of Redis resolves to the loopback address,
 * and every name fails while the file `TORTURE_NAMES` exists, as `getaddrinfo` does without a name server.
 */
const file = process.env.TORTURE_NAMES ?? '';
const system = dns.lookup;

dns.lookup = (name, ...rest) => {
  const callback = rest.at(-1);
  const options = typeof rest[0] === 'object' ? rest[0] : {};
  if (existsSync(file)) {
    const error = Object.assign(new Error(`getaddrinfo EAI_AGAIN ${name}`), {
      ...{ errno: -3001, code: 'EAI_AGAIN', syscall: 'getaddrinfo', hostname: name },
    });
    process.nextTick(callback, error);
  } else if (!name.endsWith('.torture.test')) system(name, ...rest);
  else if (options.all) process.nextTick(callback, null, [{ address: '127.0.0.1', family: 4 }]);
  else process.nextTick(callback, null, '127.0.0.1', 4);
};
