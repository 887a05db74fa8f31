import { readdirSync, readFileSync } from 'node:fs';

/**
 * CPU time that a process has used so far, in microseconds, all of its threads together. From the scheduler's own
 * accounts (Linux): exact to the nanosecond, where /proc/<pid>/stat counts ticks of 10 ms.
 */
export function cpuMicros(pid: number): number {
  let nanos = 0;
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    try {
      nanos += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0]);
    } catch {
      // The thread has ended meanwhile; those of Node and Redis last as long as the process.
    }
  }
  return nanos / 1000;
}

/** Notes the CPU time of processes and returns how much each has used since, in the same order. */
export function startCpuClock(pids: readonly number[]): () => number[] {
  const before = pids.map(cpuMicros);
  return () => pids.map((pid, at) => cpuMicros(pid) - (before[at] ?? 0));
}

/** As `cpuMicros`, of the thread that runs the event loop alone: the time in which a process serves nothing else. */
export function mainThreadMicros(pid: number): number {
  return Number(readFileSync(`/proc/${pid}/task/${pid}/schedstat`, 'utf8').split(' ')[0]) / 1000;
}
