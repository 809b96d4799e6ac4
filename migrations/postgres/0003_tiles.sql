-- The Merkle tree over the entries' leaves (C2SP tlog-tiles): full tiles, and above the leaves those
-- that still grow. A tile of leaves that is not full is in entries.leaf.
CREATE TABLE tiles (
    level  smallint NOT NULL CHECK (level >= 0),
    n      bigint   NOT NULL CHECK (n >= 0),
    hashes bytea    NOT NULL CHECK (octet_length(hashes) BETWEEN 32 AND 8192 AND octet_length(hashes) % 32 = 0),
    PRIMARY KEY (level, n)
);
ALTER TABLE tiles ALTER COLUMN hashes SET STORAGE EXTERNAL;

-- The signed checkpoint of all that is written (C2SP signed-note).
ALTER TABLE head ADD COLUMN checkpoint text NOT NULL DEFAULT '';

CREATE FUNCTION refuse_other_growth() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.level <> OLD.level OR NEW.n <> OLD.n
        OR substring(NEW.hashes FOR octet_length(OLD.hashes)) <> OLD.hashes THEN
        RAISE EXCEPTION 'the ledger is append-only: a tile only grows'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER only_grows BEFORE UPDATE ON tiles
    FOR EACH ROW EXECUTE FUNCTION refuse_other_growth();
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON tiles
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- One row: the greatest checkpoint that a witness has cosigned, with its cosignatures.
CREATE TABLE witnessed (
    one  boolean PRIMARY KEY DEFAULT true CHECK (one),
    size bigint NOT NULL,
    note text NOT NULL
);
