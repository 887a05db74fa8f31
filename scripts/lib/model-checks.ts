/** The checks of the Quint models in `models/`: see docs/formal-models.md. */

/** A text of a model that occurs once in it, and what replaces it. */
export interface Change {
  readonly without: string;
  readonly from: string;
  readonly to: string;
}

export interface ModelChecks {
  readonly model: string;
  /** The action of a step; default: `step`. */
  readonly step?: string;
  /** The simulator takes at most this many steps per sample. */
  readonly steps: number;
  /** They hold in every state. Each has a change of the model that violates it. */
  readonly invariants: Readonly<Record<string, Change>>;
  /** Limits of a promise: the simulator finds a state of the model, with the change if there is one, that violates it. */
  readonly limits: Readonly<Record<string, Change | undefined>>;
}

export const MODEL_CHECKS: readonly ModelChecks[] = [
  {
    model: 'admission',
    steps: 30,
    invariants: {
      capHolds: { without: 'the eviction', from: 'leases: leases.without(victims),', to: 'leases: leases,' },
      newConnectionIsAdmitted: {
        without: 'counting the newcomer as live',
        from: 'or { d == c, isSubscribed(homes.get(d)) }',
        to: 'isSubscribed(homes.get(d))',
      },
      deadNodesGoFirst: {
        without: 'the preference for connections of disconnected nodes',
        from: 'if (a.in(alive) != b.in(alive)) b.in(alive)',
        to: 'if (false) false',
      },
      oldestGoFirst: {
        without: 'the admission order',
        from: 'orders.get(a) < orders.get(b)',
        to: 'orders.get(a) > orders.get(b)',
      },
      expiredLeasesDoNotCount: {
        without: 'the removal of expired leases',
        from: 'val valid = redis.leases.after(state.now)',
        to: 'val valid = redis.leases',
      },
      lostLeaseIsNoticed: {
        without: 'the entries of evicted connections',
        from: 'readmits: not(c.in(leased)) }',
        to: 'readmits: false }',
      },
    },
    limits: { noEvictionWithinCap: undefined },
  },
  {
    model: 'runs',
    steps: 40,
    invariants: {
      oneTerminalEvent: {
        without: 'the refusal to claim a run that has ended',
        from: 'redis.status != "missing", not(isEnded(redis)),',
        to: 'redis.status != "missing",',
      },
      endIsInTheLog: {
        without: 'the status in the append of the terminal event',
        from: 'status: if (kind.in(ENDS)) kind else r.status,',
        to: 'status: r.status,',
      },
      oneSequence: {
        without: 'the recognition of a repeated append',
        from: 'else if (r.events >= w.known + 1) { outcome: "repeated", redis: r }',
        to: '',
      },
      onlyTheOwnerAppends: {
        without: 'the fence',
        from: 'else if (r.token != latest(w)) { outcome: "fenced", redis: r }',
        to: '',
      },
      recordedOnce: {
        without: 'one script for the event and the usage record',
        from: '{ outcome: "repeated", redis: r }',
        to: '{ outcome: "repeated", redis: { ...r, records: r.records + (if (kind == "result") 1 else 0) } }',
      },
      journaledCallIsNotRepeated: {
        without: 'the replay from the journal',
        from: 'previous: redis.token, base: redis.events,',
        to: 'previous: redis.token, base: 0,',
      },
      cancelledRunStartsNoCall: {
        without: 'the check for a cancellation before a call',
        from: 'not(worker.executed), not(worker.cancelled),',
        to: 'not(worker.executed),',
      },
      everyOpenRunIsSwept: {
        without: 'the entry in activeRuns after a restoration',
        from: 'events: events, active: true,',
        to: 'events: events,',
      },
    },
    limits: { completedCallIsNotRepeated: undefined },
  },
  {
    model: 'ledger',
    steps: 40,
    invariants: {
      chargedOnce: {
        without: 'the set of resubmitted ids',
        from: 'returned: l.returned.union(resubmitted),',
        to: 'returned: l.returned,',
      },
      countedOnce: {
        without: 'the comparison of the outbox cursor',
        from: 'l.records != w.head or l.cursors.get(o) != w.cursors.get(o) or',
        to: 'l.records != w.head or',
      },
      chainIsIntact: {
        without: 'the hash as the fencing token',
        from: 'l.records != w.head or',
        to: '',
      },
      nothingIsLost: {
        without: 'the resubmission of acknowledged records',
        from: 'losses: 1, resubmissions: 2,',
        to: 'losses: 1, resubmissions: 0,',
      },
      survivorsAreCharged: {
        without: 'the connection of the append for the trim',
        from: 'writer.since == state.losses,   // as in appendTo',
        to: '//',
      },
    },
    limits: {},
  },
  {
    model: 'ledger',
    step: 'clusterStep',
    steps: 40,
    invariants: {
      repeatedCallIsChargedOnce: {
        without: 'the ids that are kept before a rewind',
        from: 'redis.ledger.returned.union(linked(writers.get(w).head))',
        to: 'redis.ledger.returned',
      },
      lateRecordsAreCharged: {
        without: 'the rewind of the cursor',
        from: 'if (isMoved.get(o)) 0 else l.cursors.get(o)),',
        to: 'l.cursors.get(o)),',
      },
    },
    limits: { outboxLosesNothing: undefined },
  },
];
