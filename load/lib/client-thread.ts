import { monitorEventLoopDelay } from 'node:perf_hooks';
import { parentPort, workerData } from 'node:worker_threads';
import type { Histograms, Tick } from './measures.ts';
import { VirtualUsers, type VirtualUsersPlan } from './virtual-users.ts';

export type ThreadOrder =
  | { readonly do: 'begin'; readonly durationMs: number; readonly graceMs: number }
  /** Ends at once, with what has been measured so far. */
  | { readonly do: 'stop' };

export type ThreadNews =
  | { readonly is: 'connected' }
  | { readonly is: 'tick'; readonly tick: Tick }
  | {
      readonly is: 'done';
      readonly tick: Tick;
      readonly histograms: Histograms;
      /** How late this thread's own timers were, ms: what it could not keep up with is in every figure. */
      readonly loopDelayP99Ms: number;
    };

const TICK_MS = 1_000;
const NANOSECONDS = 1e6;
/** The histogram holds the time between two samples, of which this much is meant. */
const LOOP_SAMPLE_MS = 10;

/** A thread with a crowd: connects when it starts, begins and ends when it is told, and says what it measured. */
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
