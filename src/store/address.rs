//! A store's address, looked at before the database's own reader does: what that one says of an address
//! repeats parts of it, and an address holds a password.

use url::Url;

/// What Postgres's reader knows behind the `?`.
const POSTGRES: [&str; 19] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "target_session_attrs",
    "user",
];
/// What `SQLite`'s reader knows there.
const SQLITE: [&str; 4] = ["mode", "cache", "immutable", "vfs"];

/// Why a text names no store. It repeats nothing of the text but a plain scheme.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// It begins otherwise.
    #[error(
        "`{0}` names no store: want `sqlite://path/to/file.db` or `postgres://user@host/database`"
    )]
    Scheme(String),
    /// It cannot be taken apart.
    #[error(
        "the store's address cannot be read: want `sqlite://path/to/file.db` or `postgres://user:password@host:port/database`; in a user's name and a password, write `%40` for `@`, `%3A` for `:`, `%2F` for `/`, `%3F` for `?`, `%23` for `#` and `%25` for `%`"
    )]
    Unreadable,
    /// Something unknown stands behind the `?`.
    #[error(
        "the store's address has a parameter behind its `?` that is not known, or a value there that cannot be used; in a password, write `%3F` for `?`"
    )]
    Parameter,
    /// Each connection would have a memory of its own.
    #[error("a store in memory is lost at once: want `sqlite://path/to/file.db`")]
    Memory,
}

/// Refuses an address that its database's reader would refuse, or understand otherwise than it is meant.
pub(super) fn check(address: &str) -> Result<(), AddressError> {
    let scheme = address.split_once("://").map_or("", |(scheme, _)| scheme);
    let is_plain =
        (1..=12).contains(&scheme.len()) && scheme.bytes().all(|b| b.is_ascii_lowercase());
    match scheme {
        "postgres" | "postgresql" => check_postgres(address),
        "sqlite" => parameters(address.split_once('?').map_or("", |(_, query)| query), &SQLITE),
        _ if address.starts_with("sqlite:") => Err(AddressError::Memory),
        _ => Err(AddressError::Scheme(if is_plain { scheme } else { "this text" }.to_owned())),
    }
}

fn check_postgres(address: &str) -> Result<(), AddressError> {
    let url = Url::parse(address).map_err(|_| AddressError::Unreadable)?;
    let query = url.query().unwrap_or_default();
    parameters(query, &POSTGRES)?;
    let has_host = url.host_str().is_some_and(|host| !host.is_empty());
    let names_host = url.query_pairs().any(|(name, _)| name == "host" || name == "hostaddr");
    // What is left of a password in which one of these was not written as `%…`.
    let database = url.path().trim_start_matches('/');
    let is_odd = database.contains(['@', ':', '/']) || url.fragment().is_some();
    if is_odd || !(has_host || names_host) { Err(AddressError::Unreadable) } else { Ok(()) }
}

fn parameters(query: &str, known: &[&str]) -> Result<(), AddressError> {
    let is_known = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = name.split('[').next().unwrap_or_default();
        // An `@` here parts a password from its host.
        known.contains(&name) && !value.contains('@')
    };
    let mut pairs = query.split('&').filter(|pair| !pair.is_empty());
    if pairs.all(is_known) { Ok(()) } else { Err(AddressError::Parameter) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_as_it_is_meant_or_not_at_all() {
        for address in [
            "sqlite://data/lexgate.db",
            "sqlite:///var/lib/lexgate.db?mode=rwc",
            "postgres://lexgate:p%3Fw@db.example:5432/lexgate?sslmode=verify-full",
            "postgresql:///lexgate?host=/run/postgresql&user=lexgate",
            "postgres://lexgate@[::1]/lexgate?options[search_path]=a",
            "postgres://127.0.0.1",
        ] {
            assert_eq!(check(address), Ok(()), "{address}");
        }
        for address in [
            "postgres://u:pw?hunter2@h/db",
            "postgres://u:12?hunter2@h/db",
            "postgres://u:12?password=x@h/db",
            "postgres://u:12/hunter2@h/db",
            "postgres://u:12#hunter2@h/db",
            "postgres://u:hunter2@h/db/hunter2",
            "postgres://u:hunter2@[",
            "postgres://u:hunter2@h:port/db",
            "postgres://u:hunter2@h/db?sslmod=hunter2",
            "postgres://",
            "host=h user=u password=hunter2 dbname=db",
            "postgres:u:hunter2@h",
            "hunter2",
            "hunter2://h",
            "mysql://u:hunter2@h/db",
            "sqlite://a.db?hunter2=1",
            "sqlite::memory:",
            "",
        ] {
            let error = check(address).expect_err(address).to_string();
            assert!(!error.contains("hunter2"), "{address}: {error}");
        }
    }
}
