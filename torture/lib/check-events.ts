import { type HistoryLine, type LoggedEvent, linesOf, type Opened, type UserLog } from './history.ts';
import type { Violation } from './promises.ts';

type LogsByUser = ReadonlyMap<string, UserLog>;

export function logsByUser(history: readonly HistoryLine[]): LogsByUser {
  return new Map(linesOf(history, 'log').map((log) => [log.user, log]));
}

/**
 * Checks each connection: its events continue its position one by one, belong to its user, and are those of the log.
 * Events after a change of the epoch are compared within their connection only.
 */
export function checkDeliveries(history: readonly HistoryLine[]): Violation[] {
  const violations: Violation[] = [];
  const opened = new Map<string, Opened>();
  const positions = new Map<string, number>();
  const logs = logsByUser(history);
  const logged = new Map<string, LoggedEvent>();
  for (const log of logs.values()) for (const event of log.events) logged.set(`${log.user} ${event.seq}`, event);

  for (const line of history) {
    if (line.t === 'opened') {
      opened.set(line.connection, line);
      positions.set(line.connection, line.after);
    }
    if (line.t === 'lost') {
      const what = `${line.connection} of ${line.user} cannot resume: ${line.reason}.`;
      violations.push({ promise: 'delivery', what, at: line.at });
    }
    if (line.t !== 'event') continue;
    const { connection, user, seq, eventId, eventUser, at } = line;
    const report = (what: string) => violations.push({ promise: 'delivery', what, at });
    const welcome = opened.get(connection);
    const position = positions.get(connection);
    if (!welcome || position === undefined) {
      report(`Event ${seq} arrived on ${connection}, which has not opened.`);
      continue;
    }
    if (seq <= position) report(`Event ${seq} of ${user} arrived again on ${connection}, after event ${position}.`);
    if (seq > position + 1) report(`Events ${position + 1} to ${seq - 1} of ${user} are missing on ${connection}.`);
    positions.set(connection, Math.max(seq, position));
    if (eventUser !== user) report(`${connection} of ${user} received event ${eventId} of ${eventUser}.`);
    const log = logs.get(user);
    if (line.uncertain || log?.epoch !== welcome.epoch) continue;
    const other = logged.get(`${user} ${seq}`);
    if (other?.eventId !== eventId) {
      report(`Event ${seq} of ${user} arrived as ${eventId}; the log has ${other?.eventId ?? 'no such event'}.`);
    }
  }
  return violations;
}

/** Checks that each log is 1, 2, 3, …, that its events belong to its user, and that no event is in it twice. */
export function checkLogs(history: readonly HistoryLine[]): Violation[] {
  const violations: Violation[] = [];
  const report = (what: string) => violations.push({ promise: 'log', what });
  const seen = new Map<string, string>();
  for (const { user, events } of linesOf(history, 'log')) {
    const hole = events.findIndex(({ seq }, index) => seq !== index + 1);
    if (hole >= 0) report(`The log of ${user} has event ${events[hole]?.seq} in position ${hole + 1}.`);
    for (const { eventId, seq, user: eventUser } of events) {
      if (eventUser !== user) report(`Event ${seq} in the log of ${user} belongs to ${eventUser}.`);
      const earlier = seen.get(eventId);
      if (earlier !== undefined) report(`${eventId} is in the logs as ${earlier} and as ${user} ${seq}.`);
      seen.set(eventId, `${user} ${seq}`);
    }
  }
  return violations;
}
