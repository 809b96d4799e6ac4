-- Which legal holds an erasure looked at, and which it went past: what the record of it will say, also
-- when another process has to write that record.
ALTER TABLE subject_keys
    ADD COLUMN destroyed_as_of   bigint,    -- holds before this position were looked at
    ADD COLUMN destroyed_despite text;      -- JSON: the holds, and the officer's reason
