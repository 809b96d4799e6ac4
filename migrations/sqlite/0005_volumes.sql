-- How many people's data left a jurisdiction, by tenant and day: sums over the decisions of the ledger,
-- kept in the commit that writes them. `export` is what left and where it went, as JSON.
CREATE TABLE volumes (
    tenant   TEXT    NOT NULL,
    origin   TEXT    NOT NULL,
    day      INTEGER NOT NULL,              -- since 1970-01-01, where the law's days begin
    export   TEXT    NOT NULL,
    subjects INTEGER NOT NULL,
    PRIMARY KEY (tenant, origin, day, export)
) WITHOUT ROWID;
