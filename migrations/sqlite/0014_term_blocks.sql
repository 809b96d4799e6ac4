-- The index by which records are found: for each term and each block of 4,096 positions, which of them have
-- it. Made behind the log, of full blocks, from the entries alone: also of those that are there already.
CREATE TABLE term_blocks (
    term  TEXT    NOT NULL,
    block INTEGER NOT NULL CHECK (block >= 0),
    seqs  BLOB    NOT NULL CHECK (length(seqs) BETWEEN 2 AND 512),
    PRIMARY KEY (term, block)
) WITHOUT ROWID;
CREATE INDEX term_blocks_block ON term_blocks (block);

-- One row: the first position that is not indexed, and how often bodies were removed.
CREATE TABLE term_progress (
    one      INTEGER PRIMARY KEY DEFAULT 1 CHECK (one = 1),
    next     INTEGER NOT NULL DEFAULT 0,
    removals INTEGER NOT NULL DEFAULT 0
);
INSERT INTO term_progress DEFAULT VALUES;

-- What is indexed is forgotten with the bodies of its records, and else not.
CREATE TRIGGER term_blocks_no_update BEFORE UPDATE ON term_blocks
WHEN NOT EXISTS (SELECT 1 FROM pruning)
BEGIN
    SELECT RAISE(ABORT, 'the index of the ledger is append-only: UPDATE of term_blocks is refused');
END;
CREATE TRIGGER term_blocks_no_delete BEFORE DELETE ON term_blocks
WHEN NOT EXISTS (SELECT 1 FROM pruning)
BEGIN
    SELECT RAISE(ABORT, 'the index of the ledger is append-only: DELETE of term_blocks is refused');
END;
-- INSERT OR REPLACE removes the row in its way without asking a DELETE trigger.
CREATE TRIGGER term_blocks_no_replace BEFORE INSERT ON term_blocks
WHEN EXISTS (SELECT 1 FROM term_blocks WHERE term = NEW.term AND block = NEW.block)
BEGIN
    SELECT RAISE(ABORT, 'the index of the ledger is append-only: REPLACE in term_blocks is refused');
END;

-- The terms stay beside the entry, where the next block is made of them; NULL in rows of older versions,
-- whose entries say most of them, and their rows in the former table all. Those go little by little, once they
-- are indexed. The table has another name now: a process of an older version, which would find only what is
-- left in it, fails at once.
ALTER TABLE entry_terms RENAME TO former_entry_terms;
ALTER TABLE entries ADD COLUMN terms TEXT;
DROP TRIGGER entries_no_update;
CREATE TRIGGER entries_no_update BEFORE UPDATE ON entries
WHEN NOT EXISTS (SELECT 1 FROM pruning) OR length(NEW.entry) > 0 OR NEW.terms IS NOT NULL
    OR NEW.seq <> OLD.seq OR NEW.id <> OLD.id OR NEW.ts <> OLD.ts OR NEW.kind <> OLD.kind
    OR NEW.leaf <> OLD.leaf OR NEW.about IS NOT OLD.about
BEGIN
    SELECT RAISE(ABORT, 'the ledger is append-only: UPDATE of entries is refused');
END;
