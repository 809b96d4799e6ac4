-- When the time of a record is over, its body goes and its row stays: place, hash and what they are of
-- hold the chain and the tree together. Nothing else of an entry can be changed, and this only in a
-- transaction that has put a row here, and takes it away again.
CREATE TABLE pruning (one INTEGER PRIMARY KEY CHECK (one = 1));

DROP TRIGGER entries_no_update;
CREATE TRIGGER entries_no_update BEFORE UPDATE ON entries
WHEN NOT EXISTS (SELECT 1 FROM pruning) OR length(NEW.entry) > 0
    OR NEW.seq <> OLD.seq OR NEW.id <> OLD.id OR NEW.ts <> OLD.ts OR NEW.kind <> OLD.kind
    OR NEW.leaf <> OLD.leaf OR NEW.about IS NOT OLD.about
BEGIN
    SELECT RAISE(ABORT, 'the ledger is append-only: UPDATE of entries is refused');
END;
