-- The ledger. `entries.entry` is the truth; every other column and table is an index of it, kept so
-- that a commit and a search are cheap. Instants are microseconds since 1970-01-01T00:00:00Z.

CREATE TABLE entries (
    seq   INTEGER PRIMARY KEY CHECK (seq >= 0),
    id    BLOB    NOT NULL UNIQUE CHECK (length(id) = 16),
    ts    INTEGER NOT NULL,
    kind  TEXT    NOT NULL,
    about INTEGER UNIQUE,                   -- of an outcome: its decision, which has no other
    leaf  BLOB    NOT NULL CHECK (length(leaf) = 32),
    entry BLOB    NOT NULL CHECK (length(entry) <= 65535)
);
CREATE INDEX entries_ts ON entries (ts, seq);
CREATE INDEX entries_kind ON entries (kind, seq);

CREATE TABLE entry_terms (
    term TEXT    NOT NULL,
    seq  INTEGER NOT NULL,
    PRIMARY KEY (term, seq)
) WITHOUT ROWID;

-- One row: what the next entry follows. Who holds the write lock appends.
CREATE TABLE head (
    one      INTEGER PRIMARY KEY DEFAULT 1 CHECK (one = 1),
    next     INTEGER NOT NULL,
    leaf     BLOB    NOT NULL,
    ts       INTEGER NOT NULL,
    revision INTEGER NOT NULL
);
INSERT INTO head (next, leaf, ts, revision) VALUES (0, zeroblob(32), 0, 0);

-- What the active snapshots consist of, by digest.
CREATE TABLE contents (
    digest BLOB PRIMARY KEY CHECK (length(digest) = 32),
    kind   TEXT NOT NULL,
    bytes  BLOB NOT NULL
);

-- Every snapshot that became active; the one with the greatest revision is.
CREATE TABLE activations (
    revision     INTEGER PRIMARY KEY,
    seq          INTEGER NOT NULL,
    bundle       BLOB    NOT NULL,
    facts        BLOB    NOT NULL,
    organisation BLOB    NOT NULL,
    registers    BLOB    NOT NULL
);

-- Decisions that a process sends, until their outcome is written.
CREATE TABLE open_dispatches (
    seq     INTEGER PRIMARY KEY,
    process BLOB    NOT NULL
);
CREATE INDEX open_dispatches_process ON open_dispatches (process);

-- Until when a process is believed to live.
CREATE TABLE leases (
    process BLOB    PRIMARY KEY,
    until   INTEGER NOT NULL
);

CREATE TABLE idempotency (
    scope   TEXT    NOT NULL,
    key     TEXT    NOT NULL,
    request BLOB    NOT NULL,
    seq     INTEGER NOT NULL,
    ts      INTEGER NOT NULL,
    PRIMARY KEY (scope, key)
);
CREATE INDEX idempotency_ts ON idempotency (ts);

CREATE TRIGGER entries_no_update BEFORE UPDATE ON entries BEGIN
    SELECT RAISE(ABORT, 'the ledger is append-only: UPDATE of entries is refused');
END;
CREATE TRIGGER entries_no_delete BEFORE DELETE ON entries BEGIN
    SELECT RAISE(ABORT, 'the ledger is append-only: DELETE of entries is refused');
END;
-- INSERT OR REPLACE removes the rows in its way without asking a DELETE trigger.
CREATE TRIGGER entries_no_replace BEFORE INSERT ON entries
WHEN EXISTS (SELECT 1 FROM entries WHERE seq = NEW.seq)
    OR EXISTS (SELECT 1 FROM entries WHERE id = NEW.id)
    OR EXISTS (SELECT 1 FROM entries WHERE about = NEW.about)
BEGIN
    SELECT RAISE(ABORT, 'the ledger is append-only: REPLACE in entries is refused');
END;
CREATE TRIGGER contents_no_update BEFORE UPDATE ON contents BEGIN
    SELECT RAISE(ABORT, 'the ledger is append-only: UPDATE of contents is refused');
END;
CREATE TRIGGER contents_no_delete BEFORE DELETE ON contents BEGIN
    SELECT RAISE(ABORT, 'the ledger is append-only: DELETE of contents is refused');
END;
CREATE TRIGGER activations_no_update BEFORE UPDATE ON activations BEGIN
    SELECT RAISE(ABORT, 'the ledger is append-only: UPDATE of activations is refused');
END;
CREATE TRIGGER activations_no_delete BEFORE DELETE ON activations BEGIN
    SELECT RAISE(ABORT, 'the ledger is append-only: DELETE of activations is refused');
END;
