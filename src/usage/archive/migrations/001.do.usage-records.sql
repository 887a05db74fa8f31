-- The second copy of the usage ledger. Nothing in here is ever changed: a row is written once, and rows that a Redis
-- fail-over made untrue are moved to usage_records_superseded, never deleted.

-- One row, locked by the archiver that is at work: its lease. It ends with its transaction, whatever becomes of its holder.
CREATE TABLE usage_archive (
  singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  -- The record that the first one is chained to: 0 and '' unless the ledger had been trimmed before it was archived.
  base_sequence bigint NOT NULL,
  base_hash text NOT NULL
);
INSERT INTO usage_archive (base_sequence, base_hash) VALUES (0, '');

CREATE TABLE usage_records (
  sequence bigint PRIMARY KEY,
  id text NOT NULL UNIQUE,
  -- The hour that it is billed in, e.g. 2026-11-20T10, UTC.
  period text NOT NULL,
  units bigint NOT NULL,
  -- Over the hash of the record before and this record's JSON: see "Verify" in docs/billing.md.
  hash text NOT NULL,
  -- The bytes of the ledger. `json` keeps them as they are, `jsonb` would not, and the hash is over them.
  record json NOT NULL,
  archived_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX usage_records_period ON usage_records (period, sequence);

-- Records of a history of the ledger that Redis has lost, after another one had begun in its place.
CREATE TABLE usage_records_superseded (
  hash text PRIMARY KEY,
  sequence bigint NOT NULL,
  id text NOT NULL,
  period text NOT NULL,
  units bigint NOT NULL,
  record json NOT NULL,
  archived_at timestamptz NOT NULL,
  superseded_at timestamptz NOT NULL DEFAULT now(),
  -- When it was last given to the ledger, to be appended again under the same id.
  returned_at timestamptz,
  -- When usage_records was seen to have a record of the same id.
  settled_at timestamptz
);
CREATE INDEX usage_records_superseded_open ON usage_records_superseded (sequence) WHERE settled_at IS NULL;

-- The closed revisions of the ledger's windows: the bytes that were exported.
CREATE TABLE usage_windows (
  period text NOT NULL,
  revision integer NOT NULL,
  last_sequence bigint NOT NULL,
  document json NOT NULL,
  archived_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (period, revision)
);
CREATE INDEX usage_windows_last_sequence ON usage_windows (last_sequence);
CREATE TABLE usage_windows_superseded (LIKE usage_windows, superseded_at timestamptz NOT NULL DEFAULT now());

-- The hours of the records, and how far the closed revisions go that are archived.
CREATE TABLE usage_hours (
  period text PRIMARY KEY,
  last_sequence bigint NOT NULL,
  closed_to bigint NOT NULL DEFAULT 0
);
CREATE INDEX usage_hours_open ON usage_hours (period) WHERE last_sequence > closed_to;
