//! Sealed values in Postgres.

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{Connection as _, PgConnection, Row as _};
use uuid::Uuid;

use super::PostgresStore;
use crate::{
    domain::{Digest, Seq},
    store::{
        DestroyedKey, Destruction, KeptValue, PersonalStore, SealedValue, StoreError, SubjectKey,
        bound::{OPERATION, within},
        row::{self, Columns as _, limit_column, seq_column},
    },
};

#[async_trait]
impl PersonalStore for PostgresStore {
    async fn master_key(&self, proof: Option<Digest>) -> Result<Option<Digest>, StoreError> {
        let mut connection = self.connection().await?;
        let found = within(OPERATION, master_key(connection.get()?, proof)).await?;
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
        let mut connection = self.connection().await?;
        within(OPERATION, keep_subject_key(connection.get()?, subject, key)).await?;
        connection.give_back();
        Ok(())
    }

    async fn kept_value(&self, seq: Seq) -> Result<Option<KeptValue>, StoreError> {
        let mut connection = self.connection().await?;
        let found = within(OPERATION, kept_value(connection.get()?, seq)).await?;
        connection.give_back();
        Ok(found)
    }

    async fn keys_of(&self, subjects: &[Digest]) -> Result<Vec<Uuid>, StoreError> {
        let mut connection = self.connection().await?;
        let found = within(OPERATION, keys_of(connection.get()?, subjects)).await?;
        connection.give_back();
        Ok(found)
    }

    async fn destroy_keys(&self, destruction: &Destruction) -> Result<bool, StoreError> {
        let mut connection = self.connection().await?;
        let done = within(OPERATION, destroy_keys(connection.get()?, destruction)).await?;
        connection.give_back();
        Ok(done)
    }

    async fn destroyed_keys(
        &self,
        subjects: Option<&[Digest]>,
        before: Timestamp,
    ) -> Result<Vec<DestroyedKey>, StoreError> {
        let mut connection = self.connection().await?;
        let found = within(OPERATION, destroyed_keys(connection.get()?, subjects, before)).await?;
        connection.give_back();
        Ok(found)
    }

    async fn values_under(
        &self,
        key: Uuid,
        after: Option<Seq>,
        limit: usize,
    ) -> Result<Vec<Seq>, StoreError> {
        let mut connection = self.connection().await?;
        let found = within(OPERATION, values_under(connection.get()?, key, after, limit)).await?;
        connection.give_back();
        Ok(found)
    }

    async fn forget_values(
        &self,
        key: Uuid,
        values: &[Seq],
        erasure: Seq,
    ) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        within(OPERATION, forget_values(connection.get()?, key, values, erasure)).await?;
        connection.give_back();
        Ok(())
    }

    async fn forget_key(&self, key: Uuid) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        within(OPERATION, forget_key(connection.get()?, key)).await?;
        connection.give_back();
        Ok(())
    }
}

async fn master_key(
    connection: &mut PgConnection,
    proof: Option<Digest>,
) -> Result<Option<Digest>, StoreError> {
    if let Some(proof) = proof {
        sqlx::query("INSERT INTO master_key (one, proof) VALUES (true, $1) ON CONFLICT DO NOTHING")
            .bind(proof.as_bytes().to_vec())
            .execute(&mut *connection)
            .await?;
    }
    let row = sqlx::query("SELECT proof FROM master_key").fetch_optional(connection).await?;
    row.as_ref().map(|row| row::digest(&row.bytes(0)?)).transpose()
}

async fn subject_key(
    connection: &mut PgConnection,
    subject: Digest,
) -> Result<Option<SubjectKey>, StoreError> {
    let row = sqlx::query(
        "SELECT id::text, wrapped FROM subject_keys WHERE subject = $1 AND wrapped IS NOT NULL",
    )
    .bind(subject.as_bytes().to_vec())
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(SubjectKey { id: id(&row.try_get::<String, _>(0)?)?, wrapped: row.try_get(1)? }))
}

async fn keep_subject_key(
    connection: &mut PgConnection,
    subject: Digest,
    key: &SubjectKey,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO subject_keys (id, subject, wrapped) VALUES ($1::uuid, $2, $3)
         ON CONFLICT DO NOTHING",
    )
    .bind(key.id.to_string())
    .bind(subject.as_bytes().to_vec())
    .bind(key.wrapped.clone())
    .execute(connection)
    .await?;
    Ok(())
}

async fn kept_value(
    connection: &mut PgConnection,
    seq: Seq,
) -> Result<Option<KeptValue>, StoreError> {
    let row = sqlx::query(
        "SELECT v.erasure, v.key::text, v.sealed, k.wrapped
         FROM personal_values v LEFT JOIN subject_keys k ON k.id = v.key WHERE v.seq = $1",
    )
    .bind(seq_column(seq))
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    if row.try_get::<Option<i64>, _>(0)?.is_some() {
        return Ok(Some(KeptValue::Erased(row::seq(&row, 0)?)));
    }
    let value = SealedValue { key: id(&row.try_get::<String, _>(1)?)?, sealed: row.try_get(2)? };
    Ok(Some(KeptValue::Sealed(value, row.try_get(3)?)))
}

async fn keys_of(
    connection: &mut PgConnection,
    subjects: &[Digest],
) -> Result<Vec<Uuid>, StoreError> {
    let rows = sqlx::query("SELECT id::text FROM subject_keys WHERE subject = ANY ($1)")
        .bind(bytes_of(subjects))
        .fetch_all(connection)
        .await?;
    rows.iter().map(|row| id(&row.try_get::<String, _>(0)?)).collect()
}

fn bytes_of(subjects: &[Digest]) -> Vec<Vec<u8>> {
    subjects.iter().map(|subject| subject.as_bytes().to_vec()).collect()
}

async fn destroy_keys(
    connection: &mut PgConnection,
    destruction: &Destruction,
) -> Result<bool, StoreError> {
    let mut transaction = connection.begin().await?;
    // Nobody appends a hold between the look and the deed.
    sqlx::query("SELECT next FROM head FOR UPDATE").execute(&mut *transaction).await?;
    if is_held_since(&mut transaction, destruction.as_of).await? {
        transaction.rollback().await?;
        return Ok(false);
    }
    sqlx::query(
        "UPDATE subject_keys SET wrapped = NULL, destroyed_at = $2::bigint, destroyed_by = $3,
                destroyed_as_of = $4::bigint, destroyed_despite = $5
         WHERE subject = ANY ($1) AND wrapped IS NOT NULL",
    )
    .bind(bytes_of(&destruction.subjects))
    .bind(destruction.at.as_microsecond())
    .bind(&destruction.by)
    .bind(seq_column(destruction.as_of))
    .bind(&destruction.despite)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(true)
}

/// Whether a legal hold was set, changed or lifted at `seq` or behind it.
pub(super) async fn is_held_since(
    connection: &mut PgConnection,
    seq: Seq,
) -> Result<bool, StoreError> {
    let row = sqlx::query(
        "SELECT EXISTS (SELECT 1 FROM entries WHERE kind = 'legal_hold' AND seq >= $1 AND seq < (SELECT next FROM head))",
    )
    .bind(seq_column(seq))
    .fetch_one(connection)
    .await?;
    Ok(row.try_get(0)?)
}

async fn destroyed_keys(
    connection: &mut PgConnection,
    subjects: Option<&[Digest]>,
    before: Timestamp,
) -> Result<Vec<DestroyedKey>, StoreError> {
    let rows = sqlx::query(
        "SELECT id::text, destroyed_by, destroyed_as_of, destroyed_despite FROM subject_keys
         WHERE destroyed_at < $1 AND ($2::bytea[] IS NULL OR subject = ANY ($2::bytea[]))",
    )
    .bind(before.as_microsecond())
    .bind(subjects.map(bytes_of))
    .fetch_all(connection)
    .await?;
    let key = |row: &sqlx::postgres::PgRow| {
        let as_of = row.try_get::<Option<i64>, _>(2)?;
        Ok(DestroyedKey {
            id: id(&row.try_get::<String, _>(0)?)?,
            by: row.try_get(1)?,
            as_of: as_of.map(|_| row::seq(row, 2)).transpose()?,
            despite: row.try_get(3)?,
        })
    };
    rows.iter().map(key).collect()
}

async fn values_under(
    connection: &mut PgConnection,
    key: Uuid,
    after: Option<Seq>,
    limit: usize,
) -> Result<Vec<Seq>, StoreError> {
    let rows = sqlx::query(
        "SELECT seq FROM personal_values WHERE key = $1::uuid AND seq > $2 ORDER BY seq LIMIT $3",
    )
    .bind(key.to_string())
    .bind(after.map_or(-1, seq_column))
    .bind(limit_column(limit))
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| row::seq(row, 0)).collect()
}

async fn forget_values(
    connection: &mut PgConnection,
    key: Uuid,
    values: &[Seq],
    erasure: Seq,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE personal_values SET key = NULL, sealed = NULL, erasure = $3
         WHERE seq = ANY ($1) AND key = $2::uuid",
    )
    .bind(values.iter().copied().map(seq_column).collect::<Vec<_>>())
    .bind(key.to_string())
    .bind(seq_column(erasure))
    .execute(connection)
    .await?;
    Ok(())
}

async fn forget_key(connection: &mut PgConnection, key: Uuid) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM subject_keys WHERE id = $1::uuid AND wrapped IS NULL")
        .bind(key.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

fn id(column: &str) -> Result<Uuid, StoreError> {
    Uuid::try_parse(column).map_err(|_| StoreError::Corrupt("a key's number"))
}
