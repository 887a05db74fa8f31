import { useStack } from '../stack.ts';
import { CpuMeter } from './meter.ts';

/** Raises every limit that would refuse an input unread, so that the reading is measured. */
const UNLIMITED = {
  MESSAGE_RATE_PER_MINUTE: '1000000',
  MAX_MESSAGE_BYTES: '65536',
  MAX_CONNECTIONS_PER_USER: '1000',
  TRUSTED_PROXY_HOPS: '1',
  LOG_LEVEL: 'error',
  ACCESS_TOKEN_SECONDS: '3600',
};

/** A private gateway, worker and auth service, and a meter over all three. */
export function useMeteredStack(env: Readonly<Record<string, string>> = {}) {
  const stack = useStack({ workers: 1, env: { ...UNLIMITED, ...env } });
  return {
    addresses: () => stack().addresses,
    meter: () => new CpuMeter(stack().all.flatMap(({ pid }) => (pid === undefined ? [] : [pid]))),
  };
}
