import { readdirSync, readFileSync } from 'node:fs';

/**
 * Returns the CPU time of a process so far, in microseconds, over all threads. It reads the scheduler's accounting
 * (Linux), which is exact to the nanosecond; /proc/<pid>/stat counts ticks of 10 ms.
 */
export function cpuMicros(pid: number): number {
  let nanos = 0;
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    try {
      nanos += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0]);
    } catch {
      // The thread ended between the two reads. Threads of Node and Redis last as long as their process.
    }
  }
  return nanos / 1000;
}

/** Records the CPU time of processes; the returned function gives the time used since, in the same order. */
export function startCpuClock(pids: readonly number[]): () => number[] {
  const before = pids.map(cpuMicros);
  return () => pids.map((pid, at) => cpuMicros(pid) - (before[at] ?? 0));
}

/** Like `cpuMicros`, for the thread of the event loop only: the time in which the process serves nothing else. */
export function mainThreadMicros(pid: number): number {
  return Number(readFileSync(`/proc/${pid}/task/${pid}/schedstat`, 'utf8').split(' ')[0]) / 1000;
}
