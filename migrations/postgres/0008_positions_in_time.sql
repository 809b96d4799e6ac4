-- Instants never decrease along the log: the first position since one is found by halving, and no commit
-- has to write an index for it.
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

-- Nobody asks for one process' open dispatches.
DROP INDEX open_dispatches_process;
