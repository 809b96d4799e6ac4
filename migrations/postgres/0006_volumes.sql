-- How many people's data left a jurisdiction, by tenant and day: sums over the decisions of the ledger,
-- kept in the commit that writes them. `export` is what left and where it went, as JSON.
CREATE TABLE volumes (
    tenant   text   NOT NULL,
    origin   text   NOT NULL,
    day      int    NOT NULL,               -- since 1970-01-01, where the law's days begin
    export   text   NOT NULL,
    subjects bigint NOT NULL,
    PRIMARY KEY (tenant, origin, day, export)
);
