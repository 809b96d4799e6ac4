-- What locks a table of the log gives up soon where somebody reads it: everything waits behind it meanwhile, and
-- may wait less than that. It is tried again.
SET LOCAL lock_timeout = '200ms';

-- The index by which records are found: for each term and each block of 4,096 positions, which of them have
-- it. Made behind the log, of full blocks, from the entries alone: also of those that are there already.
CREATE TABLE term_blocks (
    term  text   NOT NULL,
    block bigint NOT NULL CHECK (block >= 0),
    seqs  bytea  NOT NULL CHECK (octet_length(seqs) BETWEEN 2 AND 512),
    PRIMARY KEY (term, block)
);
ALTER TABLE term_blocks ALTER COLUMN seqs SET STORAGE PLAIN;
CREATE INDEX term_blocks_block ON term_blocks (block);

-- One row: the first position that is not indexed, and how often bodies were removed.
CREATE TABLE term_progress (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    next     bigint  NOT NULL DEFAULT 0,
    removals bigint  NOT NULL DEFAULT 0
);
INSERT INTO term_progress DEFAULT VALUES;

-- What is indexed is forgotten with the bodies of its records, and else not.
CREATE FUNCTION refuse_other_forgetting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('lexgate.prune', true) IS DISTINCT FROM 'on'
        OR NOT pg_has_role(current_user, (SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'USAGE') THEN
        RAISE EXCEPTION 'the index of the ledger is append-only: % of % is refused', TG_OP, TG_TABLE_NAME
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER only_forgets BEFORE UPDATE OR DELETE ON term_blocks
    FOR EACH ROW EXECUTE FUNCTION refuse_other_forgetting();
CREATE TRIGGER append_only BEFORE TRUNCATE ON term_blocks
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- It ends within the log, and grows block by block; only who owns it sets it back, to make it anew.
CREATE FUNCTION refuse_other_progress() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF pg_has_role(current_user, (SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'USAGE') THEN
        RETURN coalesce(NEW, OLD);
    END IF;
    IF TG_OP <> 'UPDATE' OR NEW.removals <> OLD.removals OR NEW.next <> OLD.next + 4096
        OR NEW.next > (SELECT next FROM head) THEN
        RAISE EXCEPTION 'the index of the ledger grows by whole blocks: % of % is refused', TG_OP, TG_TABLE_NAME
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER only_grows BEFORE INSERT OR UPDATE OR DELETE ON term_progress
    FOR EACH ROW EXECUTE FUNCTION refuse_other_progress();

-- Of a part of the log, in which instants do not decrease: a log whose time was corrected has several. The
-- function of migration 8 stays for services of the version before, which may run beside newer ones.
CREATE FUNCTION first_since_within(instant bigint, first bigint, stop bigint) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
DECLARE
    low    bigint := first;
    high   bigint := stop;
    middle bigint;
BEGIN
    WHILE low < high LOOP
        middle := (low + high) / 2;
        IF (SELECT ts FROM entries WHERE seq = middle) < instant THEN
            low := middle + 1;
        ELSE
            high := middle;
        END IF;
    END LOOP;
    RETURN low;
END
$$;

-- No commit has to write an index of terms any more: they stay beside the entry, where the next block is
-- made of them.
DROP INDEX entries_terms;
