-- The ledger. `entries.entry` is the truth; every other column and table is an index of it, kept so
-- that a commit and a search are cheap. Instants are microseconds since 1970-01-01T00:00:00Z.

CREATE TABLE entries (
    seq   bigint PRIMARY KEY CHECK (seq >= 0),
    id    uuid   NOT NULL UNIQUE,
    ts    bigint NOT NULL,
    kind  text   NOT NULL,
    about bigint UNIQUE,                    -- of an outcome: its decision, which has no other
    leaf  bytea  NOT NULL CHECK (octet_length(leaf) = 32),
    entry bytea  NOT NULL CHECK (octet_length(entry) <= 65535),
    terms text[] NOT NULL
);
CREATE INDEX entries_ts ON entries (ts, seq);
CREATE INDEX entries_kind ON entries (kind, seq);
CREATE INDEX entries_terms ON entries USING gin (terms);

-- One row: what the next entry follows. Who holds its lock appends.
CREATE TABLE head (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    next     bigint  NOT NULL,
    leaf     bytea   NOT NULL,
    ts       bigint  NOT NULL,
    revision bigint  NOT NULL
);
INSERT INTO head (next, leaf, ts, revision)
VALUES (0, decode(repeat('00', 32), 'hex'), 0, 0);

-- What the active snapshots consist of, by digest.
CREATE TABLE contents (
    digest bytea PRIMARY KEY CHECK (octet_length(digest) = 32),
    kind   text  NOT NULL,
    bytes  bytea NOT NULL
);

-- Every snapshot that became active; the one with the greatest revision is.
CREATE TABLE activations (
    revision     bigint PRIMARY KEY,
    seq          bigint NOT NULL,
    bundle       bytea  NOT NULL,
    facts        bytea  NOT NULL,
    organisation bytea  NOT NULL,
    registers    bytea  NOT NULL
);

-- Decisions that a process sends, until their outcome is written.
CREATE TABLE open_dispatches (
    seq     bigint PRIMARY KEY,
    process uuid   NOT NULL
);
CREATE INDEX open_dispatches_process ON open_dispatches (process);

-- Until when a process is believed to live.
CREATE TABLE leases (
    process uuid   PRIMARY KEY,
    until   bigint NOT NULL
);

CREATE TABLE idempotency (
    scope   text   NOT NULL,
    key     text   NOT NULL,
    request bytea  NOT NULL,
    seq     bigint NOT NULL,
    ts      bigint NOT NULL,
    PRIMARY KEY (scope, key)
);
CREATE INDEX idempotency_ts ON idempotency (ts);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append-only: % of % is refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON entries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON contents
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON activations
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
