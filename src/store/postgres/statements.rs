//! The statements by which batches are appended to Postgres. Not what is bound to them
//! ([`super::append`]).

/// What the server's clock says, in microseconds: not when the transaction began, but now.
macro_rules! clock {
    () => {
        "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
    };
}

/// Begins the transaction and locks the head, in one exchange.
pub(super) const LOCK: &str = concat!(
    "BEGIN; SELECT next, leaf, ts, revision, fence, ",
    clock!(),
    ", checkpoint FROM head FOR UPDATE"
);

/// The same, and makes statements that are still on their way miss the head.
pub(super) const FENCE: &str = concat!(
    "BEGIN; UPDATE head SET fence = fence + 1 RETURNING next, leaf, ts, revision, fence, ",
    clock!(),
    ", checkpoint"
);

/// Between the terms of an entry, which do not hold it ([`crate::store::storable`]).
pub(super) const SEPARATOR: &str = "\u{1f}";

/// The statement that moves the head and writes the entries, and what is named `beside`, or nothing. The
/// parameter `here` is this machine's time, and `bound` says how far that and the entries' may be from the
/// server's; `revision` is the one that the head must name: who has changed that alone is not written over.
macro_rules! statement {
    ($here:literal, $bound:literal, $revision:literal, $beside:expr) => {
        concat!(
            "
WITH moved AS (
    UPDATE head SET next = $1, leaf = $2, ts = $3, revision = $4, checkpoint = $15
    WHERE next = $5 AND leaf = $6 AND fence = $7 AND revision = ",
            $revision,
            "
        AND greatest(abs($3 - ",
            clock!(),
            "), abs(",
            $here,
            " - ",
            clock!(),
            ")) <= ",
            $bound,
            "
    RETURNING true
), written AS (
    INSERT INTO entries (seq, id, ts, kind, about, leaf, entry, terms)
    SELECT seq, id::uuid, $3, kind, about, leaf, entry, string_to_array(terms, E'\\x1f')
    FROM moved, unnest($8::bigint[], $9::text[], $10::text[], $11::bigint[], $12::bytea[],
        $13::bytea[], $14::text[]) AS new (seq, id, kind, about, leaf, entry, terms)
)",
            $beside,
            "
SELECT count(*) FROM moved"
        )
    };
}

/// For entries that have nothing beside them.
pub(super) const WRITE: &str = statement!("$16::bigint", "$17::bigint", "$18::bigint", "");

/// What calls open and close, and what their entries commit to.
macro_rules! calls {
    () => {
        ", opened AS (
    INSERT INTO open_dispatches (seq, process, app, tenant)
    SELECT seq, process::uuid, app, tenant
    FROM moved, unnest($16::bigint[], $17::text[], $18::text[], $19::text[])
        AS new (seq, process, app, tenant)
), closed AS (
    DELETE FROM open_dispatches USING moved WHERE seq = ANY ($11::bigint[])
), kept AS (
    INSERT INTO personal_values (seq, key, sealed)
    SELECT seq, key::uuid, sealed
    FROM moved, unnest($20::bigint[], $21::text[], $22::bytea[]) AS new (seq, key, sealed)
)"
    };
}

/// For entries of calls. Apart from those that follow, because most batches have nothing else beside
/// them, and a statement costs Postgres by its length.
pub(super) const WRITE_CALLS: &str =
    statement!("$23::bigint", "$24::bigint", "$25::bigint", calls!());

/// The same, and what entries claim and use, whose data left, and the tiles that they fill.
pub(super) const WRITE_BESIDE: &str = statement!(
    "$38::bigint",
    "$39::bigint",
    "$40::bigint",
    concat!(
        calls!(),
        ", claimed AS (
    INSERT INTO idempotency (scope, key, request, seq, ts)
    SELECT scope, key, request, seq, $3
    FROM moved, unnest($23::text[], $24::text[], $25::bytea[], $26::bigint[])
        AS new (scope, key, request, seq)
), grown AS (
    INSERT INTO tiles (level, n, hashes)
    SELECT level, n, hashes
    FROM moved, unnest($27::bigint[], $28::bigint[], $29::bytea[]) AS new (level, n, hashes)
    ON CONFLICT (level, n) DO UPDATE SET hashes = excluded.hashes
), counted AS (
    INSERT INTO volumes (tenant, origin, day, export, subjects)
    SELECT tenant, origin, day, export, subjects
    FROM moved, unnest($30::text[], $31::text[], $32::int[], $33::text[], $34::bigint[])
        AS new (tenant, origin, day, export, subjects)
    ON CONFLICT (tenant, origin, day, export) DO UPDATE
    SET subjects = volumes.subjects + excluded.subjects
), used AS (
    INSERT INTO counters (name, since, used)
    SELECT name, since, used
    FROM moved, unnest($35::text[], $36::bigint[], $37::text[]) AS new (name, since, used)
    ON CONFLICT (name, since) DO UPDATE SET used = excluded.used
)"
    )
);
