use std::error::Error as _;

use postgres::error::{DbError, SqlState};

use super::address::Address;
use crate::store::Error;
use crate::tls;

/// An error of the driver or the server in words that help.
pub(super) fn explain(address: &Address, act: &str, error: &postgres::Error) -> Error {
    let target = address.target.clone();
    let Some(said) = error.as_db_error() else {
        let reason = chain(error);
        return match () {
            () if reason.starts_with("error performing TLS handshake") => {
                Error::Login { target, reason: format!("{reason}{}", tls_advice(&reason)) }
            }
            () if reason.starts_with("invalid configuration") || reason.starts_with("authentication error") => {
                let advice = "put the password into the credential database-url, or into SERVER_DB_PASSWORD";
                Error::Login { target, reason: format!("{reason}; {advice}") }
            }
            () if reason.starts_with("error serializing") || reason.starts_with("error deserializing") => {
                Error::Statement { target, act: act.to_owned(), reason }
            }
            () => Error::Unavailable { target, reason },
        };
    };
    let reason = sentence(said);
    let code = said.code();
    match &code.code()[..2] {
        // PgBouncer reports everything as a protocol violation, a refused login too.
        "08" if reason.contains("authentication failed") || reason.contains("no such") => {
            Error::Login { target, reason }
        }
        "08" | "53" | "57" | "58" | "40" | "55" | "25" => {
            let advice = match *code {
                SqlState::READ_ONLY_SQL_TRANSACTION => {
                    "; it is a standby: name the primary, or add ?target_session_attrs=read-write"
                }
                SqlState::TOO_MANY_CONNECTIONS => "; raise max_connections, or put PgBouncer in front",
                _ => "",
            };
            Error::Unavailable { target, reason: format!("{reason}{advice}") }
        }
        "28" | "3D" => Error::Login { target, reason: format!("{reason}{}", login_advice(code, address)) },
        _ if *code == SqlState::INSUFFICIENT_PRIVILEGE => {
            let grant = format!(
                "as the owner of the tables, run: GRANT SELECT, INSERT, DELETE ON system_metrics, hub_schema TO {};",
                quoted(&address.role)
            );
            Error::Rights { target, reason: format!("cannot {act}: {reason}"), remedy: grant }
        }
        _ => Error::Statement { target, act: act.to_owned(), reason },
    }
}

/// The SQLSTATE and the reason where the server refuses a row for what is in it; none where the error is of another kind.
pub(super) fn refusal(error: &postgres::Error) -> Option<(String, String)> {
    let said = error.as_db_error()?;
    if *said.code() == SqlState::SEQUENCE_GENERATOR_LIMIT_EXCEEDED {
        // No row gets a number any more.
        return None;
    }
    // Data exceptions, integrity constraints, views that check, limits of the program such as the size of an index
    // entry, exceptions that a trigger raises ("Appendix A").
    let code = said.code().code();
    matches!(&code[..2], "22" | "23" | "44" | "54" | "P0").then(|| (code.to_owned(), sentence(said)))
}

/// What the server says, without the driver's words around it.
pub(super) fn said(error: &postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |said| said.message().to_owned())
}

/// A table as SQL names it, with its schema where there is one.
pub(super) fn table_name(table: &str) -> String {
    table.split('.').map(quoted).collect::<Vec<_>>().join(".")
}

/// An SQL identifier.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn login_advice(code: &SqlState, address: &Address) -> String {
    match *code {
        SqlState::INVALID_CATALOG_NAME => {
            let name = address.config.get_dbname().unwrap_or(&address.role);
            format!("; make it as a superuser: CREATE DATABASE {} OWNER {};", quoted(name), quoted(&address.role))
        }
        SqlState::INVALID_PASSWORD => "; the password comes from the URL, or else from SERVER_DB_PASSWORD".to_owned(),
        _ => "; look at the role and at pg_hba.conf on the server".to_owned(),
    }
}

/// How a database's URL names an authority.
pub(super) const SSLROOTCERT: tls::Key = tls::Key { name: "sslrootcert", example: "sslrootcert=/path/ca.pem" };

fn tls_advice(reason: &str) -> String {
    if reason.contains("does not support TLS") {
        "; set ssl = on in postgresql.conf, or sslmode=disable where the network is trusted".to_owned()
    } else if reason.contains("not valid for name") || reason.contains("NotValidForName") {
        "; use the name that is in the certificate's subjectAltName, or sslmode=verify-ca".to_owned()
    } else {
        tls::advice(reason, SSLROOTCERT)
    }
}

fn sentence(said: &DbError) -> String {
    let mut text = format!("{} (SQLSTATE {})", said.message(), said.code().code());
    for more in [said.detail(), said.hint()].into_iter().flatten() {
        text.push_str("; ");
        text.push_str(more);
    }
    text
}

fn chain(error: &postgres::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
