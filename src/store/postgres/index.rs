//! The index of terms in Postgres.

use std::ops::RangeInclusive;

use jiff::Timestamp;
use sqlx::{Connection as _, PgConnection, Row as _, postgres::PgRow};
use uuid::Uuid;

use crate::{
    domain::Seq,
    ledger::{Kind, SeqRange},
    store::{
        StoreError, Stored,
        index::{self, BLOCK, Bits, Block, Index, Indexing, Kept, Listed, Part, Progress},
        row::{self, seq_column},
    },
};

/// Lists the records of a part, of one kind or of all, in either order.
macro_rules! listing {
    ($kind:literal, $order:literal) => {
        concat!(
            "SELECT seq, kind, terms FROM entries
             WHERE seq >= $1 AND seq < $2 AND octet_length(entry) > 0 ",
            $kind,
            " ORDER BY seq ",
            $order,
            " LIMIT $3"
        )
    };
}

fn column(position: u64) -> i64 {
    seq_column(Seq::new(position))
}

fn position(row: &PgRow, index: usize) -> Result<u64, StoreError> {
    Ok(row::seq(row, index)?.get())
}

fn kept(row: &PgRow) -> Result<Kept, StoreError> {
    Ok(Kept { term: row.try_get(0)?, block: position(row, 1)?, seqs: row.try_get(2)? })
}

fn listed(row: &PgRow) -> Result<Listed, StoreError> {
    Ok(Listed { seq: position(row, 0)?, kind: row.try_get(1)?, terms: row.try_get(2)? })
}

impl Index for PgConnection {
    const HAS_ROLES: bool = true;

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
            "SELECT term, block, seqs FROM term_blocks
             WHERE term = ANY ($1) AND block >= $2 AND block < $3",
        )
        .bind(terms)
        .bind(column(first))
        .bind(column(end))
        .fetch_all(self)
        .await?;
        rows.iter().map(kept).collect()
    }

    async fn listed(&mut self, part: &Part) -> Result<Vec<Listed>, StoreError> {
        let statement = match (&part.kind, part.newest_first) {
            (None, false) => listing!("", ""),
            (None, true) => listing!("", "DESC"),
            (Some(_), false) => listing!("AND kind = $4", ""),
            (Some(_), true) => listing!("AND kind = $4", "DESC"),
        };
        let mut query = sqlx::query(statement)
            .bind(column(part.span.start))
            .bind(column(part.span.end))
            .bind(column(BLOCK));
        if let Some(kind) = &part.kind {
            query = query.bind(kind.as_str());
        }
        let rows = query.fetch_all(self).await?;
        rows.iter().map(listed).collect()
    }

    async fn listed_at(&mut self, seqs: &[u64]) -> Result<Vec<Listed>, StoreError> {
        let rows = sqlx::query(
            "SELECT seq, kind, terms FROM entries
             WHERE seq = ANY ($1) AND octet_length(entry) > 0 ORDER BY seq",
        )
        .bind(seqs.iter().copied().map(column).collect::<Vec<_>>())
        .fetch_all(self)
        .await?;
        rows.iter().map(listed).collect()
    }

    async fn entries(&mut self, seqs: &[u64]) -> Result<Vec<Stored>, StoreError> {
        let rows = sqlx::query(
            "SELECT seq, leaf, entry FROM entries
             WHERE seq = ANY ($1) AND octet_length(entry) > 0",
        )
        .bind(seqs.iter().copied().map(column).collect::<Vec<_>>())
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
        let row = sqlx::query("SELECT first_since_within($1, $2, $3)")
            .bind(instant.as_microsecond())
            .bind(column(first))
            .bind(column(end))
            .fetch_one(self)
            .await?;
        position(&row, 0)
    }

    async fn corrections(&mut self) -> Result<Vec<u64>, StoreError> {
        let rows = sqlx::query("SELECT seq FROM entries WHERE kind = $1 ORDER BY seq")
            .bind(Kind::ClockCorrected.as_str())
            .fetch_all(self)
            .await?;
        rows.iter().map(|row| position(row, 0)).collect()
    }

    async fn about(&mut self, id: Uuid) -> Result<Vec<u64>, StoreError> {
        let rows = sqlx::query(
            "WITH RECURSIVE chain (seq) AS (
                 SELECT seq FROM entries WHERE id = $1::uuid
                 UNION SELECT e.seq FROM chain JOIN entries e ON e.about = chain.seq)
             SELECT seq FROM chain ORDER BY seq",
        )
        .bind(id.to_string())
        .fetch_all(self)
        .await?;
        rows.iter().map(|row| position(row, 0)).collect()
    }

    async fn indexed(&mut self, terms: &[String]) -> Result<Vec<String>, StoreError> {
        let rows = sqlx::query(
            "SELECT wanted.term FROM unnest($1::text[]) AS wanted (term)
             WHERE EXISTS (SELECT 1 FROM term_blocks b WHERE b.term = wanted.term)",
        )
        .bind(terms)
        .fetch_all(self)
        .await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }
}

/// Indexes the next block.
pub(super) async fn index_block(connection: &mut PgConnection) -> Result<Indexing, StoreError> {
    let Some(block) = index::next_block(connection).await? else {
        return Ok(Indexing::UpToDate);
    };
    let mut transaction = connection.begin().await?;
    // Its lock lets nobody remove bodies before the block is there, where their words are then taken out.
    let moved = sqlx::query("UPDATE term_progress SET next = $1 WHERE next = $2 AND removals = $3")
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
    let Block { terms, .. } = block;
    let (terms, seqs): (Vec<_>, Vec<_>) = terms.into_iter().unzip();
    sqlx::query(
        "INSERT INTO term_blocks (term, block, seqs)
         SELECT term, $1, seqs FROM unnest($2::text[], $3::bytea[]) AS new (term, seqs)",
    )
    .bind(number)
    .bind(terms)
    .bind(seqs)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(Indexing::Indexed)
}

/// Says that bodies are about to be removed, in the transaction that does so: a block that is being made
/// waits for it, and is then made anew.
pub(super) async fn announce_removal(connection: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::query("UPDATE term_progress SET removals = removals + 1").execute(connection).await?;
    Ok(())
}

/// Takes these positions out of the index.
pub(super) async fn forget(
    connection: &mut PgConnection,
    range: SeqRange,
) -> Result<(), StoreError> {
    for block in blocks(range) {
        let rows = sqlx::query("SELECT term, block, seqs FROM term_blocks WHERE block = $1")
            .bind(column(block))
            .fetch_all(&mut *connection)
            .await?;
        let (mut gone, mut terms, mut seqs) = (Vec::new(), Vec::new(), Vec::new());
        for row in &rows {
            let Kept { term, seqs: before, .. } = kept(row)?;
            match Bits::decode(&before)?.without(block, range) {
                Some(left) if left.is_empty() => gone.push(term),
                Some(left) => {
                    terms.push(term);
                    seqs.push(left.encode());
                }
                None => {}
            }
        }
        sqlx::query("DELETE FROM term_blocks WHERE block = $1 AND term = ANY ($2)")
            .bind(column(block))
            .bind(gone)
            .execute(&mut *connection)
            .await?;
        sqlx::query(
            "UPDATE term_blocks SET seqs = new.seqs
             FROM unnest($2::text[], $3::bytea[]) AS new (term, seqs)
             WHERE term_blocks.block = $1 AND term_blocks.term = new.term",
        )
        .bind(column(block))
        .bind(terms)
        .bind(seqs)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

fn blocks(range: SeqRange) -> RangeInclusive<u64> {
    range.first.get() / BLOCK..=range.last.get() / BLOCK
}
