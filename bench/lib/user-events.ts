/**
 * Returns the fields of a durable event of ordinary size (about 400 bytes), as a worker writes it, with its send time.
 */
export function thinkingFields(userId: string, sequence: number) {
  return {
    event_id: `evt_${String(sequence).padStart(20, '0')}`,
    run_id: 'run_benchmarkbenchmarkbe',
    thread_id: 'thread_benchmarkbenchmark',
    request_id: 'req_benchmarkbenchmarkbe',
    user_id: userId,
    agent_name: 'assistant',
    thought: 'Looking at your usage of the last seven days before I say anything about the trend of it.',
    step: sequence,
    sent_at: Date.now(),
    timestamp: new Date().toISOString(),
  };
}

const TICK_MS = 5;

/** Calls `send` with 0, 1, 2 … at a fixed rate, in small groups per timer tick; resolves after the last call. */
export async function atRate(perSecond: number, total: number, send: (at: number) => void): Promise<void> {
  const startedAt = performance.now();
  let sent = 0;
  await new Promise<void>((resolve) => {
    const timer = setInterval(() => {
      const due = Math.min(total, Math.floor(((performance.now() - startedAt) / 1_000) * perSecond));
      while (sent < due) send(sent++);
      if (sent < total) return;
      clearInterval(timer);
      resolve();
    }, TICK_MS);
  });
}
