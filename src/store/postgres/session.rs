//! What the ledger relies on in a Postgres session, and how it is had. A role, a database or a server can
//! say otherwise of every one of these settings: so each is set where a session may, and read back, and
//! where it cannot be set it is refused by its name.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use sqlx::{Executor as _, PgConnection, Row as _, postgres::PgConnectOptions};

use crate::{
    ledger::StoreSettings,
    store::{
        Patience, SettingFault, StoreError, StoreOptions,
        standing::{Admission, Standing},
    },
};

/// The oldest server that has all that is used.
const OLDEST: i64 = 140_000;

/// How a setting is had.
#[derive(Clone, Copy)]
enum Source {
    /// Set when a session begins.
    Session,
    /// The client library sets it when a session begins.
    Client,
    /// Only the server's administrator can: it is asked.
    Server(&'static str),
}

/// A setting and the only value under which the ledger works.
struct Setting(&'static str, &'static str, Source);

/// What a setting that was set and is another shows.
const NOT_TAKEN: &str = "a session of Lexgate sets it, and the server did not take that; connect straight to the server, without a pooler in between";

/// Every setting on which the ledger relies, but for the four that are looked at one by one below.
/// Numbers are bound and read in binary form, so `extra_float_digits` and the like say nothing here.
const SETTINGS: &[Setting] = &[
    // Who waits for the head's lock must see what was committed meanwhile.
    Setting("default_transaction_isolation", "read committed", Source::Session),
    Setting("default_transaction_deferrable", "off", Source::Session),
    // Some statements are answered as text.
    Setting("bytea_output", "hex", Source::Session),
    Setting("standard_conforming_strings", "on", Source::Session),
    Setting("transform_null_equals", "off", Source::Session),
    Setting("array_nulls", "on", Source::Session),
    Setting("IntervalStyle", "postgres", Source::Session),
    // A policy on rows is an error then; else it would hide records in silence.
    Setting("row_security", "off", Source::Session),
    // Another value makes searches by terms leave records out.
    Setting("gin_fuzzy_search_limit", "0", Source::Session),
    Setting("idle_session_timeout", "0", Source::Session),
    Setting("DateStyle", "ISO, MDY", Source::Client),
    Setting("TimeZone", "UTC", Source::Client),
    Setting("client_encoding", "UTF8", Source::Client),
    Setting(
        "server_encoding",
        "UTF8",
        Source::Server("make the database anew with `ENCODING 'UTF8'`"),
    ),
    Setting(
        "fsync",
        "on",
        Source::Server(
            "what was answered is lost in a power cut; set `fsync = on` in postgresql.conf, reload, and write everything down with `initdb --sync-only` or a checkpoint",
        ),
    ),
    Setting(
        "full_page_writes",
        "on",
        Source::Server(
            "a page that was half written in a power cut stays broken; set `full_page_writes = on` in postgresql.conf and reload",
        ),
    ),
    Setting(
        "session_replication_role",
        "origin",
        Source::Server(
            "no trigger keeps the ledger append-only then; `ALTER ROLE … RESET session_replication_role`, for the database too",
        ),
    ),
    Setting(
        "zero_damaged_pages",
        "off",
        Source::Server(
            "damaged records would vanish in silence; set `zero_damaged_pages = off`, for the role and the database too",
        ),
    ),
    Setting(
        "ignore_checksum_failure",
        "off",
        Source::Server(
            "damaged records would be read as if they were whole; set `ignore_checksum_failure = off`, for the role and the database too",
        ),
    ),
];

/// What a session may not exceed, so that a replica that hangs or is cut off does not keep the head's
/// lock from the others. An unbounded one is held to nothing.
fn bounds(patience: Option<Patience>) -> [(&'static str, String); 3] {
    let lock = patience.map(|patience| match patience.connect().as_millis() {
        // As the server prints it.
        millis if millis.is_multiple_of(1000) => format!("{}s", millis / 1000),
        millis => format!("{millis}ms"),
    });
    let bound = |value: &str| patience.map_or_else(|| "0".to_owned(), |_| value.to_owned());
    [
        ("statement_timeout", bound("5s")),
        ("lock_timeout", lock.unwrap_or_else(|| "0".to_owned())),
        ("idle_in_transaction_session_timeout", bound("10s")),
    ]
}

/// What a commit waits for, where it waits for the local disk at least.
const DURABLE: [&str; 3] = ["on", "remote_apply", "remote_write"];

/// Raises `synchronous_commit` where it is lower, and else pins it: a change of the server's
/// configuration would reach sessions that have not set it.
const RAISE: &str = "SELECT pg_catalog.set_config('synchronous_commit', CASE
    WHEN pg_catalog.current_setting('synchronous_commit') IN ('on', 'remote_apply', 'remote_write')
    THEN pg_catalog.current_setting('synchronous_commit') ELSE 'on' END, false)";

const READ_BACK: &str = "SELECT wanted.name, pg_catalog.current_setting(wanted.name, true)
    FROM pg_catalog.unnest($1::pg_catalog.text[]) AS wanted (name)";

/// Everything else that can change while a session lasts, in one question.
const ASK: &str = "SELECT pg_catalog.current_setting('server_version'),
        pg_catalog.current_setting('synchronous_standby_names'),
        (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_replication),
        pg_catalog.pg_is_in_recovery()
            OR pg_catalog.current_setting('transaction_read_only') = 'on',
        coalesce((SELECT ssl FROM pg_catalog.pg_stat_ssl
            WHERE pid = pg_catalog.pg_backend_pid()), false)";

const READ_ONLY: &str = "SELECT pg_catalog.pg_is_in_recovery()
    OR pg_catalog.current_setting('transaction_read_only') = 'on'";

/// How sessions are to be, and what is known of them.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// The schema of the tables.
    pub(super) schema: String,
    bound: Option<Patience>,
    requires_standby: bool,
    standing: Arc<Standing>,
    /// Whether it was said that standbys may lag.
    has_warned: Arc<AtomicBool>,
}

impl Session {
    /// Sessions on `options`; the address may name the schema of the tables, as
    /// `?options=-c%20search_path%3DNAME`.
    pub(super) fn new(
        options: &PgConnectOptions,
        with: StoreOptions,
        standing: Arc<Standing>,
    ) -> Result<Self, StoreError> {
        let schema = schema(options.get_options().unwrap_or_default())?;
        let requires_standby = with.require_synchronous_standby;
        let has_warned = Arc::default();
        let bound = Some(with.patience);
        Ok(Self { schema, bound, requires_standby, standing, has_warned })
    }

    /// The same for migrations, which may take long.
    pub(super) fn unbounded(&self) -> Self {
        Self { bound: None, ..self.clone() }
    }

    /// Tables of the same names in a temporary schema are searched last.
    fn search_path(&self) -> String {
        format!("{},pg_temp", self.schema)
    }

    /// The options with everything that a session sets when it begins.
    pub(super) fn options(&self, options: PgConnectOptions) -> PgConnectOptions {
        let set = SETTINGS.iter().filter(|setting| matches!(setting.2, Source::Session));
        let set = set.map(|Setting(name, value, _)| (*name, value.replace(' ', "\\ ")));
        let options = options.options(set).options([("search_path", self.search_path())]);
        // A migration may take its time, whatever a role says.
        options.options(bounds(self.bound))
    }

    /// Each setting with the value that it must have, and what else is to be said.
    fn wanted(&self) -> Vec<(&'static str, String, &'static str)> {
        let wanted = SETTINGS.iter().map(|Setting(name, value, source)| {
            let remedy = match source {
                Source::Server(remedy) => remedy,
                Source::Session | Source::Client => NOT_TAKEN,
            };
            (*name, (*value).to_owned(), remedy)
        });
        let bounds = self.bound.into_iter().flat_map(|patience| bounds(Some(patience)));
        let bounds = bounds.map(|(name, value)| (name, value, NOT_TAKEN));
        let path = ("search_path", self.search_path(), NOT_TAKEN);
        wanted.chain(bounds).chain([path]).collect()
    }

    /// Reads every setting back. Gives what decides about durability.
    async fn read_back(
        &self,
        connection: &mut PgConnection,
    ) -> Result<Vec<(String, String)>, StoreError> {
        let wanted = self.wanted();
        let mut names: Vec<&str> = wanted.iter().map(|(name, ..)| *name).collect();
        names.extend(["synchronous_commit", "server_version_num"]);
        let rows = sqlx::query(READ_BACK).bind(&names).fetch_all(connection).await?;
        let mut found = Vec::new();
        for row in rows {
            let (name, value): (String, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
            found.push((name, value.unwrap_or_else(|| "unknown to the server".to_owned())));
        }
        let value = |name: &str| {
            let found = found.iter().find(|(found, _)| found == name);
            found.map_or("unknown to the server", |(_, value)| value.as_str())
        };
        let fault = |name, want| SettingFault { name, found: value(name).to_owned(), want };
        // An older server has not all of the settings.
        if value("server_version_num").parse::<i64>().unwrap_or(0) < OLDEST {
            return Err(fault("server_version_num", "Lexgate needs Postgres 14 or newer").into());
        }
        for (name, want, remedy) in &wanted {
            let is = value(name);
            if is != want && is.replace(' ', "") != want.replace(' ', "") {
                return Err(fault(*name, remedy).into());
            }
        }
        if !DURABLE.contains(&value("synchronous_commit")) {
            return Err(fault("synchronous_commit", NOT_TAKEN).into());
        }
        let durable = ["fsync", "full_page_writes", "synchronous_commit"];
        found.retain(|(name, _)| durable.contains(&name.as_str()));
        Ok(found)
    }

    /// Asks for everything again, and remembers what was found.
    pub(super) async fn examine(
        &self,
        connection: &mut PgConnection,
    ) -> Result<StoreSettings, StoreError> {
        let examined = self.examine_once(connection).await;
        self.remember(&examined);
        if matches!(examined, Err(StoreError::ReadOnly)) {
            // Another server may have taken its place: whoever connects anew finds that one.
            self.standing.renew();
        }
        examined
    }

    fn remember<T>(&self, examined: &Result<T, StoreError>) {
        match examined {
            Ok(_) | Err(StoreError::ReadOnly) => self.standing.found(Ok(())),
            Err(StoreError::Setting(fault)) => self.standing.found(Err(fault)),
            Err(_) => {}
        }
    }

    async fn examine_once(
        &self,
        connection: &mut PgConnection,
    ) -> Result<StoreSettings, StoreError> {
        let mut settings = self.read_back(connection).await?;
        let row = sqlx::query(ASK).fetch_one(&mut *connection).await?;
        let (version, names): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let (standbys, is_read_only, tls): (i64, bool, bool) =
            (row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
        if names.is_empty() && self.requires_standby {
            return Err(SettingFault {
                name: "synchronous_standby_names",
                found: names,
                want: "`[store] require_synchronous_standby` wants a commit to have reached another machine; name the standbys in postgresql.conf and reload",
            }
            .into());
        }
        if names.is_empty() && standbys > 0 && !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                standbys,
                "`synchronous_standby_names` is empty: a standby that takes over may lack what was answered; name the standbys, or set `[store] require_synchronous_standby = true` once they are named"
            );
        }
        if is_read_only {
            return Err(StoreError::ReadOnly);
        }
        settings.push(("synchronous_standby_names".to_owned(), names));
        settings.push(("tls".to_owned(), if tls { "on" } else { "off" }.to_owned()));
        let engine = "postgres".to_owned();
        Ok(StoreSettings { engine, settings: settings.into_iter().collect(), version })
    }
}

impl Admission<PgConnection> for Session {
    async fn admit(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        connection.execute(RAISE).await?;
        let read = self.read_back(connection).await;
        if let Err(StoreError::Setting(fault)) = &read {
            self.standing.found(Err(fault));
        }
        read.map(drop)
    }
}

/// Whether the server takes no writes: a standby, or a server that its administrator has set read-only, which
/// no session overrides. What is written to a server that was replaced would be lost.
pub(super) async fn is_read_only(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let row = sqlx::query(READ_ONLY).fetch_one(connection).await?;
    row.try_get(0)
}

/// The first schema that the address's options name; `public` where they name none.
fn schema(options: &str) -> Result<String, StoreError> {
    let path = options.rsplit_once("search_path=").map_or("public", |(_, rest)| rest);
    let path = path.split([' ', ',']).next().unwrap_or_default();
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if !path.is_empty() && path.chars().all(fits) && !path.starts_with("pg_") {
        return Ok(path.to_owned());
    }
    Err(SettingFault {
        name: "search_path",
        found: path.to_owned(),
        want: "`[store] url` names the schema of the tables there: one name of `a` to `z`, `0` to `9` and `_`",
    }
    .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_may_name_a_schema() {
        for (options, want) in [
            ("", "public"),
            ("-c work_mem=1MB", "public"),
            ("-c search_path=lexgate", "lexgate"),
            ("-c search_path=a,public -c work_mem=1MB", "a"),
            ("-c search_path=a -c search_path=b", "b"),
        ] {
            assert_eq!(schema(options).unwrap(), want, "{options}");
        }
        for options in ["-c search_path=", "-c search_path=pg_temp", "-c search_path=\"A\""] {
            let refused = schema(options).unwrap_err().to_string();
            assert!(refused.starts_with("the store's `search_path` is"), "{refused}");
        }
    }

    #[test]
    fn no_setting_is_listed_twice() {
        let mut names: Vec<_> = SETTINGS.iter().map(|setting| setting.0).collect();
        names.extend(bounds(None).map(|bound| bound.0));
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
