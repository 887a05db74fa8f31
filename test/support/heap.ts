import { WebSocket } from 'ws';
import type { StackProcess } from './stack.ts';

/** Opens the inspector of a stack's process on a free port; the process prints the address to stderr. */
export const INSPECTED = { NODE_OPTIONS: '--inspect=127.0.0.1:0' } as const;

/** Returns the bytes of reachable objects on the heap of an inspected process, after a full collection. */
export async function liveHeapBytes(inspectorUrl: string): Promise<number> {
  const socket = new WebSocket(inspectorUrl);
  try {
    await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject));
    await call(socket, 1, 'HeapProfiler.collectGarbage');
    const { usedSize } = await call(socket, 2, 'Runtime.getHeapUsage');
    return Number(usedSize);
  } finally {
    socket.close();
  }
}

/** Returns the inspector's address from the output. Call it early, because only the last lines are kept. */
export function inspectorUrl({ name, output }: StackProcess): string {
  const url = /ws:\/\/127\.0\.0\.1:\d+\/[\w-]+/.exec(output)?.[0];
  if (!url) throw new Error(`${name} told no inspector's address`);
  return url;
}

function call(socket: WebSocket, id: number, method: string): Promise<Record<string, unknown>> {
  return new Promise((resolve, reject) => {
    const onClose = () => reject(new Error(`the inspector closed before it answered ${method}`));
    const onMessage = (data: unknown) => {
      const answer = JSON.parse(String(data)) as { id?: number; result?: Record<string, unknown> };
      if (answer.id !== id) return;
      socket.off('close', onClose).off('message', onMessage);
      resolve(answer.result ?? {});
    };
    socket.on('message', onMessage).once('close', onClose);
    socket.send(JSON.stringify({ id, method }));
  });
}
