//! The tables, as numbered SQL files inside the program. Files are added, never edited.

use futures_util::future::BoxFuture;
use sqlx::{
    error::BoxDynError,
    migrate::{
        AppliedMigration, MigrateError, Migration, MigrationSource, MigrationType, Migrator,
    },
};

/// One database's files: number, name, text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Files(&'static [(i64, &'static str, &'static str)]);

/// The tables in Postgres.
pub(super) const POSTGRES: Files = Files(&[
    (1, "ledger", include_str!("../../migrations/postgres/0001_ledger.sql")),
    (2, "one exchange", include_str!("../../migrations/postgres/0002_one_exchange.sql")),
    (3, "tiles", include_str!("../../migrations/postgres/0003_tiles.sql")),
    (4, "personal", include_str!("../../migrations/postgres/0004_personal.sql")),
    (5, "pruning", include_str!("../../migrations/postgres/0005_pruning.sql")),
    (6, "volumes", include_str!("../../migrations/postgres/0006_volumes.sql")),
    (7, "limits", include_str!("../../migrations/postgres/0007_limits.sql")),
    (8, "positions in time", include_str!("../../migrations/postgres/0008_positions_in_time.sql")),
    (13, "despite holds", include_str!("../../migrations/postgres/0013_despite_holds.sql")),
    (14, "term blocks", include_str!("../../migrations/postgres/0014_term_blocks.sql")),
]);

/// The tables in `SQLite`.
pub(super) const SQLITE: Files = Files(&[
    (1, "ledger", include_str!("../../migrations/sqlite/0001_ledger.sql")),
    (2, "tiles", include_str!("../../migrations/sqlite/0002_tiles.sql")),
    (3, "personal", include_str!("../../migrations/sqlite/0003_personal.sql")),
    (4, "pruning", include_str!("../../migrations/sqlite/0004_pruning.sql")),
    (5, "volumes", include_str!("../../migrations/sqlite/0005_volumes.sql")),
    (6, "limits", include_str!("../../migrations/sqlite/0006_limits.sql")),
    (13, "despite holds", include_str!("../../migrations/sqlite/0013_despite_holds.sql")),
    (14, "term blocks", include_str!("../../migrations/sqlite/0014_term_blocks.sql")),
]);

impl MigrationSource<'static> for Files {
    fn resolve(self) -> BoxFuture<'static, Result<Vec<Migration>, BoxDynError>> {
        let migrations = self.0.iter().map(|(number, name, sql)| {
            Migration::new(*number, (*name).into(), MigrationType::Simple, (*sql).into(), false)
        });
        Box::pin(std::future::ready(Ok(migrations.collect())))
    }
}

/// What brings a database up to date.
pub(super) async fn migrator(files: Files) -> Result<Migrator, MigrateError> {
    Migrator::new(files).await
}

/// Whether a migration gave up waiting for a lock (55P03, `lock_not_available`).
pub(super) fn is_locked(error: &MigrateError) -> bool {
    let (MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) = error else {
        return false;
    };
    error.as_database_error().is_some_and(|error| error.code().is_some_and(|code| code == "55P03"))
}

/// Whether exactly these files were applied.
pub(super) async fn is_complete(
    files: Files,
    applied: &[AppliedMigration],
) -> Result<bool, MigrateError> {
    let migrator = migrator(files).await?;
    let same = |(file, done): (&Migration, &AppliedMigration)| {
        file.version == done.version && file.checksum == done.checksum
    };
    Ok(applied.len() == migrator.iter().len() && migrator.iter().zip(applied).all(same))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::{Files, POSTGRES, SQLITE};

    #[test]
    fn every_file_is_inside_the_program() {
        for (folder, Files(files)) in [("postgres", POSTGRES), ("sqlite", SQLITE)] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(folder);
            let found = fs::read_dir(path).unwrap();
            let found: BTreeSet<String> =
                found.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
            let inside = files
                .iter()
                .map(|(number, name, _)| format!("{number:04}_{}.sql", name.replace(' ', "_")));
            assert_eq!(found, inside.collect(), "{folder}");
        }
    }
}
