-- The Merkle tree over the entries' leaves (C2SP tlog-tiles): full tiles, and above the leaves those
-- that still grow. A tile of leaves that is not full is in entries.leaf.
CREATE TABLE tiles (
    level  INTEGER NOT NULL CHECK (level >= 0),
    n      INTEGER NOT NULL CHECK (n >= 0),
    hashes BLOB    NOT NULL CHECK (length(hashes) BETWEEN 32 AND 8192 AND length(hashes) % 32 = 0),
    PRIMARY KEY (level, n)
);

-- The signed checkpoint of all that is written (C2SP signed-note).
ALTER TABLE head ADD COLUMN checkpoint TEXT NOT NULL DEFAULT '';

CREATE TRIGGER tiles_only_grow BEFORE UPDATE ON tiles
WHEN NEW.level <> OLD.level OR NEW.n <> OLD.n
    OR substr(NEW.hashes, 1, length(OLD.hashes)) <> OLD.hashes
BEGIN
    SELECT RAISE(ABORT, 'the ledger is append-only: a tile only grows');
END;
CREATE TRIGGER tiles_no_delete BEFORE DELETE ON tiles BEGIN
    SELECT RAISE(ABORT, 'the ledger is append-only: DELETE of tiles is refused');
END;
-- INSERT OR REPLACE removes the row in its way without asking a DELETE trigger.
CREATE TRIGGER tiles_no_replace BEFORE INSERT ON tiles
WHEN EXISTS (SELECT 1 FROM tiles WHERE level = NEW.level AND n = NEW.n
    AND substr(NEW.hashes, 1, length(hashes)) <> hashes)
BEGIN
    SELECT RAISE(ABORT, 'the ledger is append-only: a tile only grows');
END;

-- One row: the greatest checkpoint that a witness has cosigned, with its cosignatures.
CREATE TABLE witnessed (
    one  INTEGER PRIMARY KEY DEFAULT 1 CHECK (one = 1),
    size INTEGER NOT NULL,
    note TEXT NOT NULL
);
