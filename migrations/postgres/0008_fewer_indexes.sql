-- Every index is written in every commit. These four were little or never asked.

-- Instants never decrease along the log: the first position since an instant is found by halving.
DROP INDEX entries_ts;
CREATE FUNCTION first_since(instant bigint) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    low    bigint := 0;
    high   bigint := (SELECT next FROM head);
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

-- Nearly all entries are of these two kinds, so the next one is never far.
DROP INDEX entries_kind;
CREATE INDEX entries_other_kinds ON entries (kind, seq) WHERE kind NOT IN ('decision', 'outcome');

-- Half of the entries are about no other.
ALTER TABLE entries DROP CONSTRAINT entries_about_key;
CREATE UNIQUE INDEX entries_about ON entries (about) WHERE about IS NOT NULL;

-- What is open is little, and is looked through as a whole.
DROP INDEX open_dispatches_process;
