-- How much of its limits each app and tenant has used, written in the commit of the records that use it.
-- `used` is an exact decimal number; whoever holds the file's lock adds to it.
CREATE TABLE counters (
    name  TEXT    NOT NULL,                 -- whose, of what, and for how long: app:desk/tokens/day
    since INTEGER NOT NULL,
    used  TEXT    NOT NULL,
    PRIMARY KEY (name, since)
) WITHOUT ROWID;
CREATE INDEX counters_since ON counters (since);

-- Whose calls are under way, where that is limited.
ALTER TABLE open_dispatches ADD COLUMN app TEXT;
ALTER TABLE open_dispatches ADD COLUMN tenant TEXT;
