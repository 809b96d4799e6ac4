//! How safe the way to the server must be: whom it may be shown to, and whether the server is the one
//! that was named.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    str::FromStr,
};

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::net::{TcpStream, UnixStream};
use url::Url;

use crate::store::{StoreError, StoreOptions};

/// The options of the address `url`, with TLS as it must be: to another machine the server proves its
/// name, unless `with` says aloud that it need not.
pub(super) fn options(url: &str, with: StoreOptions) -> Result<PgConnectOptions, StoreError> {
    let options = PgConnectOptions::from_str(url)?;
    let host = options.get_host().to_owned();
    if runs_here(&options) {
        return Ok(options);
    }
    // What `PGSSLMODE` of the environment says is no word of the configuration's.
    let named = named_mode(url).map(|_| options.get_ssl_mode());
    let mode = mode_for(&host, named, with.insecure_tls)?;
    Ok(options.ssl_mode(mode))
}

/// Where the server is, without user, password and database.
pub(super) fn address(options: &PgConnectOptions) -> String {
    options.get_socket().map_or_else(
        || format!("{}:{}", options.get_host(), options.get_port()),
        |socket| socket.display().to_string(),
    )
}

/// Whether anything listens at the server's address.
pub(super) async fn reach(options: &PgConnectOptions) -> std::io::Result<()> {
    let port = options.get_port();
    let host = PathBuf::from(options.get_host());
    let folder =
        options.get_socket().cloned().or_else(|| Some(host).filter(|host| host.is_absolute()));
    match folder {
        Some(folder) => {
            UnixStream::connect(folder.join(format!(".s.PGSQL.{port}"))).await.map(drop)
        }
        None => TcpStream::connect((options.get_host(), port)).await.map(drop),
    }
}

/// Whether the server runs on this machine.
pub(super) fn runs_here(options: &PgConnectOptions) -> bool {
    options.get_socket().is_some() || is_local(options.get_host())
}

/// Whether the address names a mode.
fn named_mode(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    let is_mode = |key: &str| matches!(key, "sslmode" | "ssl-mode");
    url.query_pairs().find(|(key, _)| is_mode(key)).map(|(_, value)| value.into_owned())
}

/// The mode for another machine.
fn mode_for(
    host: &str,
    named: Option<PgSslMode>,
    is_insecure: bool,
) -> Result<PgSslMode, StoreError> {
    let mode = match named {
        None | Some(PgSslMode::VerifyFull) => return Ok(PgSslMode::VerifyFull),
        Some(mode) => mode,
    };
    let name = match mode {
        PgSslMode::Disable => "disable",
        PgSslMode::Allow => "allow",
        PgSslMode::Prefer => "prefer",
        PgSslMode::Require => "require",
        PgSslMode::VerifyCa => "verify-ca",
        PgSslMode::VerifyFull => "verify-full",
    };
    if !is_insecure {
        return Err(StoreError::InsecureTls { host: host.to_owned(), mode: name });
    }
    tracing::warn!(
        host,
        sslmode = name,
        "`[store] insecure_tls` is set: whoever is between here and the store can read the records, or answer in its place"
    );
    Ok(mode)
}

/// Whether what is sent to `host` stays on this machine. A name that merely resolves to it does not count:
/// names are answered by others.
fn is_local(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if host.starts_with('/') || bare.eq_ignore_ascii_case("localhost") {
        return true;
    }
    match bare.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => address.is_loopback(),
        Ok(IpAddr::V6(address)) => {
            address.is_loopback()
                || address.to_ipv4_mapped().is_some_and(|v4: Ipv4Addr| v4.is_loopback())
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insecure() -> StoreOptions {
        StoreOptions { insecure_tls: true, ..StoreOptions::default() }
    }

    fn mode(url: &str, with: StoreOptions) -> Result<PgSslMode, String> {
        options(url, with).map(|options| options.get_ssl_mode()).map_err(|error| error.to_string())
    }

    #[test]
    fn another_machine_proves_its_name() {
        for host in
            ["db.internal", "10.0.0.7", "[2001:db8::1]", "localhost.example", "0.0.0.0", "127.1"]
        {
            let plain = mode(&format!("postgres://u:hush@{host}/d"), StoreOptions::default());
            assert!(matches!(plain, Ok(PgSslMode::VerifyFull)), "{host}: {plain:?}");
            for lower in ["disable", "allow", "prefer", "require", "verify-ca"] {
                let url = format!("postgres://u:hush@{host}/d?sslmode={lower}");
                let refused = mode(&url, StoreOptions::default()).unwrap_err();
                assert!(refused.contains(lower) && refused.contains("insecure_tls"), "{refused}");
                assert!(!refused.contains("hush"), "{refused}");
                assert!(mode(&url, insecure()).is_ok(), "{url}");
            }
            let said = mode(&format!("postgres://u@{host}/d"), insecure());
            assert!(matches!(said, Ok(PgSslMode::VerifyFull)), "the word alone lowers nothing");
        }
        let through = mode("postgres://u@localhost/d?host=db.internal", StoreOptions::default());
        assert!(matches!(through, Ok(PgSslMode::VerifyFull)), "{through:?}");
        let through = mode(
            "postgres://u@localhost/d?hostaddr=10.0.0.7&ssl-mode=require",
            StoreOptions::default(),
        );
        assert!(through.is_err(), "{through:?}");
    }

    #[test]
    fn this_machine_may_do_as_it_likes() {
        for url in [
            "postgres://u@localhost/d?sslmode=disable",
            "postgres://u@127.0.0.2/d?sslmode=prefer",
            "postgres://u@[::1]/d?sslmode=disable",
            "postgres://u@%2Fvar%2Frun%2Fpostgresql/d?sslmode=disable",
            "postgres:///d?host=/var/run/postgresql&sslmode=disable",
        ] {
            assert!(mode(url, StoreOptions::default()).is_ok(), "{url}");
        }
    }
}
