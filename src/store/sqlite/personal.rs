//! Sealed values in `SQLite`.

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{Row as _, SqliteConnection};
use uuid::Uuid;

use super::SqliteStore;
use crate::{
    domain::{Digest, Seq},
    store::{
        DestroyedKey, KeptValue, PersonalStore, SealedValue, StoreError, SubjectKey,
        bound::{OPERATION, within},
        row::{self, Columns as _, limit_column, seq_column},
    },
};

#[async_trait]
impl PersonalStore for SqliteStore {
    async fn master_key(&self, proof: Option<Digest>) -> Result<Option<Digest>, StoreError> {
        let mut connection = self.writer.take().await?;
        let found = within(OPERATION, master_key(&mut connection, proof)).await?;
        connection.give_back();
        Ok(found)
    }

    async fn subject_key(&self, subject: Digest) -> Result<Option<SubjectKey>, StoreError> {
        let mut connection = self.connection().await?;
        let found = within(OPERATION, subject_key(connection.get()?, subject)).await?;
        connection.give_back();
        Ok(found)
    }

    async fn keep_subject_key(&self, subject: Digest, key: &SubjectKey) -> Result<(), StoreError> {
        let mut connection = self.writer.take().await?;
        within(OPERATION, keep_subject_key(&mut connection, subject, key)).await?;
        connection.give_back();
        Ok(())
    }

    async fn kept_value(&self, seq: Seq) -> Result<Option<KeptValue>, StoreError> {
        let mut connection = self.connection().await?;
        let found = within(OPERATION, kept_value(connection.get()?, seq)).await?;
        connection.give_back();
        Ok(found)
    }

    async fn destroy_key(
        &self,
        subject: Digest,
        at: Timestamp,
        by: &str,
    ) -> Result<(), StoreError> {
        let mut connection = self.writer.take().await?;
        within(OPERATION, destroy_key(&mut connection, subject, at, by)).await?;
        connection.give_back();
        Ok(())
    }

    async fn destroyed_keys(
        &self,
        subject: Option<Digest>,
        before: Timestamp,
    ) -> Result<Vec<DestroyedKey>, StoreError> {
        let mut connection = self.connection().await?;
        let found = within(OPERATION, destroyed_keys(connection.get()?, subject, before)).await?;
        connection.give_back();
        Ok(found)
    }

    async fn values_under(&self, key: Uuid, limit: usize) -> Result<Vec<Seq>, StoreError> {
        let mut connection = self.connection().await?;
        let found = within(OPERATION, values_under(connection.get()?, key, limit)).await?;
        connection.give_back();
        Ok(found)
    }

    async fn forget_values(
        &self,
        key: Uuid,
        values: &[Seq],
        erasure: Seq,
    ) -> Result<(), StoreError> {
        let mut connection = self.writer.take().await?;
        within(OPERATION, forget_values(&mut connection, key, values, erasure)).await?;
        connection.give_back();
        Ok(())
    }

    async fn forget_key(&self, key: Uuid) -> Result<(), StoreError> {
        let mut connection = self.writer.take().await?;
        within(OPERATION, forget_key(&mut connection, key)).await?;
        connection.give_back();
        self.empty_log().await
    }
}

async fn master_key(
    connection: &mut SqliteConnection,
    proof: Option<Digest>,
) -> Result<Option<Digest>, StoreError> {
    if let Some(proof) = proof {
        sqlx::query("INSERT INTO master_key (one, proof) VALUES (1, ?1) ON CONFLICT DO NOTHING")
            .bind(proof.as_bytes().to_vec())
            .execute(&mut *connection)
            .await?;
    }
    let row = sqlx::query("SELECT proof FROM master_key").fetch_optional(connection).await?;
    row.as_ref().map(|row| row::digest(&row.bytes(0)?)).transpose()
}

async fn subject_key(
    connection: &mut SqliteConnection,
    subject: Digest,
) -> Result<Option<SubjectKey>, StoreError> {
    let row = sqlx::query(
        "SELECT id, wrapped FROM subject_keys WHERE subject = ?1 AND wrapped IS NOT NULL",
    )
    .bind(subject.as_bytes().to_vec())
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(SubjectKey { id: id(&row.try_get::<Vec<u8>, _>(0)?)?, wrapped: row.try_get(1)? }))
}

async fn keep_subject_key(
    connection: &mut SqliteConnection,
    subject: Digest,
    key: &SubjectKey,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO subject_keys (id, subject, wrapped) VALUES (?1, ?2, ?3)
         ON CONFLICT DO NOTHING",
    )
    .bind(key.id.as_bytes().to_vec())
    .bind(subject.as_bytes().to_vec())
    .bind(key.wrapped.clone())
    .execute(connection)
    .await?;
    Ok(())
}

async fn kept_value(
    connection: &mut SqliteConnection,
    seq: Seq,
) -> Result<Option<KeptValue>, StoreError> {
    let row = sqlx::query(
        "SELECT v.erasure, v.key, v.sealed, k.wrapped
         FROM personal_values v LEFT JOIN subject_keys k ON k.id = v.key WHERE v.seq = ?1",
    )
    .bind(seq_column(seq))
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    if row.try_get::<Option<i64>, _>(0)?.is_some() {
        return Ok(Some(KeptValue::Erased(row::seq(&row, 0)?)));
    }
    let value = SealedValue { key: id(&row.try_get::<Vec<u8>, _>(1)?)?, sealed: row.try_get(2)? };
    Ok(Some(KeptValue::Sealed(value, row.try_get(3)?)))
}

async fn destroy_key(
    connection: &mut SqliteConnection,
    subject: Digest,
    at: Timestamp,
    by: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE subject_keys SET wrapped = NULL, destroyed_at = ?2, destroyed_by = ?3
         WHERE subject = ?1 AND wrapped IS NOT NULL",
    )
    .bind(subject.as_bytes().to_vec())
    .bind(at.as_microsecond())
    .bind(by)
    .execute(connection)
    .await?;
    Ok(())
}

async fn destroyed_keys(
    connection: &mut SqliteConnection,
    subject: Option<Digest>,
    before: Timestamp,
) -> Result<Vec<DestroyedKey>, StoreError> {
    let rows = sqlx::query(
        "SELECT id, destroyed_by FROM subject_keys
         WHERE destroyed_at < ?1 AND (?2 IS NULL OR subject = ?2)",
    )
    .bind(before.as_microsecond())
    .bind(subject.map(|subject| subject.as_bytes().to_vec()))
    .fetch_all(connection)
    .await?;
    let key = |row: &sqlx::sqlite::SqliteRow| {
        Ok(DestroyedKey { id: id(&row.try_get::<Vec<u8>, _>(0)?)?, by: row.try_get(1)? })
    };
    rows.iter().map(key).collect()
}

async fn values_under(
    connection: &mut SqliteConnection,
    key: Uuid,
    limit: usize,
) -> Result<Vec<Seq>, StoreError> {
    let rows = sqlx::query("SELECT seq FROM personal_values WHERE key = ?1 ORDER BY seq LIMIT ?2")
        .bind(key.as_bytes().to_vec())
        .bind(limit_column(limit))
        .fetch_all(connection)
        .await?;
    rows.iter().map(|row| row::seq(row, 0)).collect()
}

async fn forget_values(
    connection: &mut SqliteConnection,
    key: Uuid,
    values: &[Seq],
    erasure: Seq,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE personal_values SET key = NULL, sealed = NULL, erasure = ?3
         WHERE seq IN (SELECT value FROM json_each(?1)) AND key = ?2",
    )
    .bind(super::read::json(values))
    .bind(key.as_bytes().to_vec())
    .bind(seq_column(erasure))
    .execute(connection)
    .await?;
    Ok(())
}

async fn forget_key(connection: &mut SqliteConnection, key: Uuid) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM subject_keys WHERE id = ?1 AND wrapped IS NULL")
        .bind(key.as_bytes().to_vec())
        .execute(connection)
        .await?;
    Ok(())
}

/// Moves what was written into the database file: the log of changes still holds what was deleted.
/// `false` when somebody who reads was in the way.
pub(super) async fn checkpoint(connection: &mut SqliteConnection) -> Result<bool, StoreError> {
    let row = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(connection).await?;
    Ok(row.try_get::<i64, _>(0)? == 0)
}

fn id(column: &[u8]) -> Result<Uuid, StoreError> {
    Uuid::from_slice(column).map_err(|_| StoreError::Corrupt("a key's number"))
}
