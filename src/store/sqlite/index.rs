//! The index of terms in `SQLite`.

use std::collections::HashMap;

use jiff::Timestamp;
use sqlx::{Connection as _, Row as _, SqliteConnection, sqlite::SqliteRow};
use uuid::Uuid;

use super::{read::json, session::LOCK};
use crate::{
    domain::Seq,
    ledger::{Kind, SeqRange},
    store::{
        StoreError, Stored,
        index::{BLOCK, Bits, Block, Index, Indexing, Kept, Listed, Part, Progress},
        row::{self, seq_column},
    },
};

/// Between the terms of an entry, which do not hold it ([`crate::store::storable`]).
pub(super) const SEPARATOR: &str = "\u{1f}";

/// How many rows of the table of terms that older versions kept go at once.
const GOING: i64 = 2000;

/// Lists the records of a part, of one kind or of all, in either order.
macro_rules! listing {
    ($kind:literal, $by:literal, $order:literal) => {
        concat!(
            "SELECT seq, kind, terms FROM entries ",
            $by,
            " WHERE seq >= ?1 AND seq < ?2 AND length(entry) > 0 ",
            $kind,
            " ORDER BY seq ",
            $order,
            " LIMIT ?3"
        )
    };
}

fn column(position: u64) -> i64 {
    seq_column(Seq::new(position))
}

fn columns(positions: &[u64]) -> String {
    json(&positions.iter().copied().map(column).collect::<Vec<_>>())
}

fn position(row: &SqliteRow, index: usize) -> Result<u64, StoreError> {
    Ok(row::seq(row, index)?.get())
}

fn kept(row: &SqliteRow) -> Result<Kept, StoreError> {
    Ok(Kept { term: row.try_get(0)?, block: position(row, 1)?, seqs: row.try_get(2)? })
}

/// Rows, and with `words` their words: those beside the entry, or, where an older version wrote the row, those in its table.
async fn listed(
    connection: &mut SqliteConnection,
    rows: &[SqliteRow],
    words: bool,
) -> Result<Vec<Listed>, StoreError> {
    let mut listed = Vec::with_capacity(rows.len());
    let mut former = Vec::new();
    for row in rows {
        let (seq, kind) = (position(row, 0)?, row.try_get(1)?);
        let beside: Option<String> = row.try_get(2)?;
        if words && beside.is_none() {
            former.push(seq);
        }
        let beside = beside.filter(|terms| !terms.is_empty());
        let terms = beside.map(|terms| terms.split(SEPARATOR).map(str::to_owned).collect());
        listed.push(Listed { seq, kind, terms: terms.unwrap_or_default() });
    }
    former.sort_unstable();
    let mut terms: HashMap<u64, Vec<String>> = HashMap::new();
    for some in former.chunk_by(|a, b| a / BLOCK == b / BLOCK) {
        let (Some(first), Some(last)) = (some.first(), some.last()) else { continue };
        for row in former_terms(connection, *first, *last).await? {
            terms.entry(position(&row, 0)?).or_default().push(row.try_get(1)?);
        }
    }
    for row in &mut listed {
        row.terms.extend(terms.remove(&row.seq).into_iter().flatten());
    }
    Ok(listed)
}

/// What the former table says of the records from `first` to `last`: their positions and terms. It is ordered by
/// terms: each is looked for in this span, and none is read twice.
async fn former_terms(
    connection: &mut SqliteConnection,
    first: u64,
    last: u64,
) -> Result<Vec<SqliteRow>, StoreError> {
    let rows = sqlx::query(
        "WITH RECURSIVE every (term) AS (
             SELECT min(term) FROM former_entry_terms
             UNION ALL
             SELECT (SELECT min(term) FROM former_entry_terms WHERE term > every.term) FROM every
             WHERE every.term IS NOT NULL)
         SELECT f.seq, f.term FROM every
         CROSS JOIN former_entry_terms f ON f.term = every.term AND f.seq BETWEEN ?1 AND ?2",
    )
    .bind(column(first))
    .bind(column(last))
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

impl Index for SqliteConnection {
    const HAS_ROLES: bool = false;

    async fn progress(&mut self) -> Result<Progress, StoreError> {
        let row =
            sqlx::query("SELECT term_progress.next, removals, head.next FROM term_progress, head")
                .fetch_one(self)
                .await?;
        let (next, head) = (position(&row, 0)?, position(&row, 2)?);
        Ok(Progress { next, removals: row.try_get(1)?, head })
    }

    async fn end(&mut self) -> Result<u64, StoreError> {
        position(&sqlx::query("SELECT next FROM head").fetch_one(self).await?, 0)
    }

    async fn kept(
        &mut self,
        terms: &[String],
        first: u64,
        end: u64,
    ) -> Result<Vec<Kept>, StoreError> {
        let rows = sqlx::query(
            "SELECT b.term, b.block, b.seqs FROM json_each(?1) AS wanted
             CROSS JOIN term_blocks b ON b.term = wanted.value AND b.block >= ?2 AND b.block < ?3",
        )
        .bind(json(terms))
        .bind(column(first))
        .bind(column(end))
        .fetch_all(self)
        .await?;
        rows.iter().map(kept).collect()
    }

    async fn listed(&mut self, part: &Part) -> Result<Vec<Listed>, StoreError> {
        let statement = match (&part.kind, part.newest_first) {
            (None, false) => listing!("", "NOT INDEXED", ""),
            (None, true) => listing!("", "NOT INDEXED", "DESC"),
            (Some(_), false) => listing!("AND kind = ?4", "INDEXED BY entries_kind", ""),
            (Some(_), true) => listing!("AND kind = ?4", "INDEXED BY entries_kind", "DESC"),
        };
        let mut query = sqlx::query(statement)
            .bind(column(part.span.start))
            .bind(column(part.span.end))
            .bind(column(BLOCK));
        if let Some(kind) = &part.kind {
            query = query.bind(kind.as_str().to_owned());
        }
        let rows = query.fetch_all(&mut *self).await?;
        listed(self, &rows, part.words).await
    }

    async fn listed_at(&mut self, seqs: &[u64]) -> Result<Vec<Listed>, StoreError> {
        let rows = sqlx::query(
            "SELECT e.seq, e.kind, e.terms FROM json_each(?1) AS wanted
             CROSS JOIN entries e ON e.seq = wanted.value WHERE length(e.entry) > 0 ORDER BY e.seq",
        )
        .bind(columns(seqs))
        .fetch_all(&mut *self)
        .await?;
        listed(self, &rows, true).await
    }

    async fn entries(&mut self, seqs: &[u64]) -> Result<Vec<Stored>, StoreError> {
        let rows = sqlx::query(
            "SELECT e.seq, e.leaf, e.entry FROM json_each(?1) AS wanted
             CROSS JOIN entries e ON e.seq = wanted.value WHERE length(e.entry) > 0",
        )
        .bind(columns(seqs))
        .fetch_all(self)
        .await?;
        row::all_stored(&rows)
    }

    async fn first_since(
        &mut self,
        instant: Timestamp,
        first: u64,
        end: u64,
    ) -> Result<u64, StoreError> {
        let row = sqlx::query(
            "WITH RECURSIVE half (low, high) AS (
                 SELECT ?2, ?3
                 UNION ALL
                 SELECT
                     CASE WHEN coalesce((SELECT ts FROM entries WHERE seq = (low + high) / 2) < ?1, 0)
                         THEN (low + high) / 2 + 1 ELSE low END,
                     CASE WHEN coalesce((SELECT ts FROM entries WHERE seq = (low + high) / 2) < ?1, 0)
                         THEN high ELSE (low + high) / 2 END
                 FROM half WHERE low < high)
             SELECT low FROM half WHERE low >= high LIMIT 1",
        )
        .bind(instant.as_microsecond())
        .bind(column(first))
        .bind(column(end))
        .fetch_one(self)
        .await?;
        position(&row, 0)
    }

    async fn corrections(&mut self) -> Result<Vec<u64>, StoreError> {
        let rows = sqlx::query("SELECT seq FROM entries WHERE kind = ?1 ORDER BY seq")
            .bind(Kind::ClockCorrected.as_str().to_owned())
            .fetch_all(self)
            .await?;
        rows.iter().map(|row| position(row, 0)).collect()
    }

    async fn about(&mut self, id: Uuid) -> Result<Vec<u64>, StoreError> {
        let rows = sqlx::query(
            "WITH RECURSIVE chain (seq) AS (
                 SELECT seq FROM entries WHERE id = ?1
                 UNION SELECT e.seq FROM chain JOIN entries e ON e.about = chain.seq)
             SELECT seq FROM chain ORDER BY seq",
        )
        .bind(id.as_bytes().to_vec())
        .fetch_all(self)
        .await?;
        rows.iter().map(|row| position(row, 0)).collect()
    }

    async fn indexed(&mut self, terms: &[String]) -> Result<Vec<String>, StoreError> {
        let rows = sqlx::query(
            "SELECT wanted.value FROM json_each(?1) AS wanted
             WHERE EXISTS (SELECT 1 FROM term_blocks b WHERE b.term = wanted.value)",
        )
        .bind(json(terms))
        .fetch_all(self)
        .await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }
}

/// Keeps a block that was made.
pub(super) async fn keep(
    connection: &mut SqliteConnection,
    block: Block,
) -> Result<Indexing, StoreError> {
    let mut transaction = connection.begin_with(LOCK).await?;
    let moved = sqlx::query("UPDATE term_progress SET next = ?1 WHERE next = ?2 AND removals = ?3")
        .bind(column(block.progress.next + BLOCK))
        .bind(column(block.progress.next))
        .bind(block.progress.removals)
        .execute(&mut *transaction)
        .await?;
    if moved.rows_affected() == 0 {
        transaction.rollback().await?;
        return Ok(Indexing::Overtaken);
    }
    let number = column(block.number());
    for (term, seqs) in block.terms {
        sqlx::query("INSERT INTO term_blocks (term, block, seqs) VALUES (?1, ?2, ?3)")
            .bind(term)
            .bind(number)
            .bind(seqs)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(Indexing::Indexed)
}

/// Takes these positions out of the index, in the transaction that removes their bodies.
pub(super) async fn forget(
    connection: &mut SqliteConnection,
    range: SeqRange,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE term_progress SET removals = removals + 1")
        .execute(&mut *connection)
        .await?;
    let (first, last) = (range.first.get() / BLOCK, range.last.get() / BLOCK);
    let rows =
        sqlx::query("SELECT term, block, seqs FROM term_blocks WHERE block BETWEEN ?1 AND ?2")
            .bind(column(first))
            .bind(column(last))
            .fetch_all(&mut *connection)
            .await?;
    for row in &rows {
        let Kept { term, block, seqs } = kept(row)?;
        let Some(left) = Bits::decode(&seqs)?.without(block, range) else { continue };
        let statement = if left.is_empty() {
            sqlx::query("DELETE FROM term_blocks WHERE term = ?1 AND block = ?2")
                .bind(term)
                .bind(column(block))
        } else {
            sqlx::query("UPDATE term_blocks SET seqs = ?3 WHERE term = ?1 AND block = ?2")
                .bind(term)
                .bind(column(block))
                .bind(left.encode())
        };
        statement.execute(&mut *connection).await?;
    }
    Ok(())
}

/// Deletes some rows of the table of terms that older versions kept, of records that are indexed. Whether there
/// were any.
pub(super) async fn clear_former(connection: &mut SqliteConnection) -> Result<bool, StoreError> {
    let gone = sqlx::query(
        "DELETE FROM former_entry_terms WHERE (term, seq) IN (
             SELECT term, seq FROM former_entry_terms
             WHERE seq < (SELECT next FROM term_progress) LIMIT ?1)",
    )
    .bind(GOING)
    .execute(connection)
    .await?;
    Ok(gone.rows_affected() > 0)
}
