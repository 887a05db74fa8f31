import { scrape } from '../metrics.ts';
import type { StackProcess, StackProcesses } from '../stack.ts';
import { until } from '../until.ts';

/** Returns the gateway of a stack that has the only connection. */
export function servingGateway({ gateways }: StackProcesses): Promise<StackProcess> {
  return until(async () => {
    for (const gateway of gateways.filter(({ running }) => running)) {
      const connections = await scrape(gateway.url, 'tollgate_connections');
      if ([...connections.values()].some((count) => count > 0)) return gateway;
    }
    return undefined;
  });
}
