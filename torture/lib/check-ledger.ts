import { type BilledRecord, type HistoryLine, type LoggedEvent, linesOf } from './history.ts';
import type { Violation } from './promises.ts';

/** Checks that ledger, event logs and users' counters have the same charges, each once. */
export function checkLedger(history: readonly HistoryLine[]): Violation[] {
  const [ledger] = linesOf(history, 'ledger');
  if (!ledger) return [];
  const violations: Violation[] = [];
  const report = (what: string) => violations.push({ promise: 'ledger', what });
  const { records, verified } = ledger;
  const unnamed = new Set(ledger.unnamed);
  if (!verified.ok) report(`verify answered ${JSON.stringify(verified.problem)}.`);
  if (verified.checked < records.length) report(`verify checked ${verified.checked} of ${records.length} records.`);
  const hole = records.findIndex(({ sequence }, index) => sequence !== index + 1);
  if (hole >= 0) report(`The ledger has sequence ${records[hole]?.sequence} in position ${hole + 1}.`);

  const byId = new Map<string, BilledRecord>();
  const keys = new Map<string, string>();
  for (const record of records) {
    if (byId.has(record.id)) report(`Record ${record.id} is in the ledger twice.`);
    byId.set(record.id, record);
    if (record.key === null) continue;
    const earlier = keys.get(record.key);
    if (earlier !== undefined) report(`Key ${record.key} is charged by ${earlier} and ${record.id}.`);
    keys.set(record.key, record.id);
  }
  const named = checkNamedRecords(history, { byId, unnamed }, report);
  for (const { id, tool } of records)
    if (!named.has(id) && !unnamed.has(id)) report(`No event names record ${id} (${tool}).`);
  for (const { user, units, period } of linesOf(history, 'usage')) {
    const own = records.filter((record) => record.user === user && record.period.startsWith(period));
    const sum = own.reduce((total, record) => total + record.units, 0);
    if (sum !== units) report(`${user} was charged ${units} units; the ledger has ${sum}.`);
  }
  return violations;
}

/** Checks each record that an event names, and returns their ids. */
function checkNamedRecords(
  history: readonly HistoryLine[],
  { byId, unnamed }: { readonly byId: ReadonlyMap<string, BilledRecord>; readonly unnamed: ReadonlySet<string> },
  report: (what: string) => void,
): Set<string> {
  const named = new Set<string>();
  const check = (user: string, { recordId = '', type, seq, success }: LoggedEvent) => {
    const record = byId.get(recordId);
    if (!record) report(`Event ${seq} of ${user} names record ${recordId}, which the ledger lacks.`);
    if (named.has(recordId)) report(`Several events name record ${recordId}.`);
    named.add(recordId);
    if (!record) return;
    if (record.user !== user) report(`Record ${recordId} of ${record.user} is named by an event of ${user}.`);
    if (unnamed.has(recordId)) return;
    if (type === 'tool_completed' && (record.status === 'success') !== success) {
      report(`Record ${recordId} is ${record.status}; its call has success: ${success}.`);
    }
  };
  for (const { user, events } of linesOf(history, 'log')) {
    for (const event of events) {
      if (event.recordId !== undefined) check(user, event);
      else if (event.type === 'tool_completed' && event.success) {
        report(`Call ${event.callId} of ${user} succeeded without a record.`);
      }
    }
  }
  return named;
}
