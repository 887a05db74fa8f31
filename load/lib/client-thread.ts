import { monitorEventLoopDelay } from 'node:perf_hooks';
import { parentPort, workerData } from 'node:worker_threads';
import type { Histograms, Tick } from './measures.ts';
import { VirtualUsers, type VirtualUsersPlan } from './virtual-users.ts';

export type ThreadOrder =
  | { readonly do: 'begin'; readonly durationMs: number; readonly graceMs: number }
  /** Ends the thread at once; it reports what it has measured so far. */
  | { readonly do: 'stop' };

export type ThreadNews =
  | { readonly is: 'connected' }
  | { readonly is: 'tick'; readonly tick: Tick }
  | {
      readonly is: 'done';
      readonly tick: Tick;
      readonly histograms: Histograms;
      /** Event loop delay of this thread, ms. Every latency figure of the thread contains it. */
      readonly loopDelayP99Ms: number;
    };

const TICK_MS = 1_000;
const NANOSECONDS = 1e6;
/** Sample interval of the event loop monitor. Its histogram contains this interval, so it is subtracted. */
const LOOP_SAMPLE_MS = 10;

/**
 * A worker thread with its share of the virtual users: connects them at the start, runs and stops on an order, and
 * reports measurements.
 */
const port = parentPort;
if (!port) throw new Error('client-thread.ts runs in a thread of main.ts');
const say = (news: ThreadNews) => port.postMessage(news);
const virtualUsers = new VirtualUsers(workerData as VirtualUsersPlan);
const ticks = setInterval(() => say({ is: 'tick', tick: virtualUsers.measures.tick() }), TICK_MS);
const loopDelay = monitorEventLoopDelay({ resolution: LOOP_SAMPLE_MS });
let isDone = false;

function finish(): void {
  if (isDone) return;
  isDone = true;
  clearInterval(ticks);
  const loopDelayP99Ms = Math.max(0, loopDelay.percentile(99) / NANOSECONDS - LOOP_SAMPLE_MS);
  virtualUsers.close();
  const { histograms } = virtualUsers.measures;
  say({ is: 'done', tick: virtualUsers.measures.tick(), histograms, loopDelayP99Ms });
  port?.close();
}

port.on('message', async (order: ThreadOrder) => {
  if (order.do === 'stop') return finish();
  loopDelay.enable();
  virtualUsers.start();
  await new Promise((resolve) => setTimeout(resolve, order.durationMs));
  await virtualUsers.end(order.graceMs);
  finish();
});

await virtualUsers.connect();
say({ is: 'connected' });
