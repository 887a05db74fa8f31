'use client';

export { type ConnectionSnapshot, useConnection } from './connection.ts';
export { TollgateProvider, type TollgateProviderProps, useTollgate } from './provider.ts';
export { type RunHandle, type RunSnapshot, type RunState, type UseRunOptions, useRun } from './run.ts';
export type { Respond, RunInput } from './run-inputs.ts';
export { type ThreadHandle, type ThreadSnapshot, type ThreadTurn, useThread } from './thread.ts';
export { type UsageHandle, type UsageSnapshot, useUsage } from './usage.ts';
