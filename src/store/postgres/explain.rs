use std::error::Error as _;

use postgres::Client;
use postgres::error::{DbError, SqlState};
use postgres::types::Type;
use rustls::CertificateError;

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
                Error::Login { target, reason: format!("{reason}{}", tls_advice(error, &reason)) }
            }
            () if matches!(tls::cause(error), Some(rustls::Error::AlertReceived(_))) => {
                let advice = "the server ends the TLS handshake: it may not trust sslcert (ssl_ca_file on the server), or \
                              speak another TLS";
                Error::Login { target, reason: format!("{reason}; {advice}") }
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
        "08" if ["authentication failed", "no such", "unsupported startup parameter"]
            .iter()
            .any(|w| reason.contains(w)) =>
        {
            Error::Login { target, reason }
        }
        // Of the states of an object or a transaction, only these pass without anybody's help.
        "55" if !matches!(*code, SqlState::LOCK_NOT_AVAILABLE | SqlState::OBJECT_IN_USE) => {
            Error::Statement { target, act: act.to_owned(), reason }
        }
        "25" if !matches!(code.code(), "25006" | "25P03" | "25P04") => {
            Error::Statement { target, act: act.to_owned(), reason }
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
    let is_row_s = matches!(&code[..2], "22" | "23" | "44" | "54" | "P0") || is_policy(error);
    is_row_s.then(|| (code.to_owned(), sentence(said)))
}

/// Whether a policy of row-level security refuses a row. The message may be in any language, and the code is that of every
/// missing right; the server's function is not.
pub(super) fn is_policy(error: &postgres::Error) -> bool {
    let said = error.as_db_error();
    said.is_some_and(|said| {
        *said.code() == SqlState::INSUFFICIENT_PRIVILEGE && said.routine() == Some("ExecWithCheckOptions")
    })
}

/// Whether a right is missing.
pub(super) fn is_about_rights(error: &postgres::Error) -> bool {
    error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE)
}

/// What a role lacks on a table, and what is particular to it.
#[derive(Clone, Debug)]
pub(super) struct Lack {
    pub is_partitioned: bool,
    /// Rights on the table itself.
    rights: Vec<String>,
    /// Sequences that give the table's rows their numbers, and not to the role.
    sequences: Vec<String>,
    /// Row-level security applies to the role.
    has_security: bool,
    /// A policy lets the role add rows.
    has_policy: bool,
}

impl Lack {
    /// Looks at a table, by its name as SQL writes it; none where it is not there.
    pub(super) fn look(client: &mut Client, table: &str) -> Result<Option<Self>, postgres::Error> {
        let row = client.query_typed_opt(
            "SELECT c.relkind = 'p', \
                    ARRAY(SELECT name FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS name \
                          WHERE NOT has_table_privilege(c.oid, name)), \
                    ARRAY(SELECT DISTINCT s.oid::regclass::text FROM pg_attrdef AS a \
                          JOIN pg_depend AS d ON d.classid = 'pg_attrdef'::regclass AND d.objid = a.oid \
                          JOIN pg_class AS s ON d.refclassid = 'pg_class'::regclass AND s.oid = d.refobjid WHERE a.adrelid = c.oid \
                          AND CASE WHEN s.relkind = 'S' THEN NOT has_sequence_privilege(s.oid, 'USAGE') ELSE FALSE END), \
                    row_security_active(c.oid), \
                    EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid AND polpermissive AND polcmd IN ('*', 'a') \
                            AND (0::oid = ANY (polroles) OR EXISTS (SELECT FROM pg_roles WHERE oid = ANY (polroles) \
                                                               AND pg_has_role(oid, 'USAGE')))) \
             FROM pg_class AS c WHERE c.oid = to_regclass($1)",
            &[(&table, Type::TEXT)],
        )?;
        let read = |row: postgres::Row| {
            Ok(Self {
                is_partitioned: row.try_get(0)?,
                rights: row.try_get(1)?,
                sequences: row.try_get(2)?,
                has_security: row.try_get(3)?,
                has_policy: row.try_get(4)?,
            })
        };
        row.map(read).transpose()
    }

    /// Whether row-level security lets the role add no row at all.
    pub(super) fn has_no_policy(&self) -> bool {
        self.has_security && !self.has_policy
    }

    /// The SQL that gives the role what it lacks; none where the catalogs show nothing.
    pub(super) fn remedy(&self, table: &str, role: &str) -> Option<String> {
        let mut lines = Vec::new();
        if !self.rights.is_empty() {
            lines.push(format!("GRANT {} ON {table} TO {role};", self.rights.join(", ")));
        }
        if !self.sequences.is_empty() {
            lines.push(format!("GRANT USAGE ON SEQUENCE {} TO {role};", self.sequences.join(", ")));
        }
        if self.has_security && (!self.has_policy || lines.is_empty()) {
            let why = "row-level security is on, and a policy has to let the role in";
            let sql = format!("CREATE POLICY observability_hub ON {table} TO {role} USING (true) WITH CHECK (true);");
            lines.push(format!("{sql} -- {why}\n"));
        }
        (!lines.is_empty()).then(|| lines.join(" "))
    }
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
            let name = quoted(address.database());
            format!("; make it as a superuser: CREATE DATABASE {name} OWNER {};", quoted(&address.role))
        }
        SqlState::INVALID_PASSWORD => "; the password comes from the URL, or else from SERVER_DB_PASSWORD".to_owned(),
        _ => "; look at the role and at pg_hba.conf on the server".to_owned(),
    }
}

/// How a database's URL names an authority.
pub(super) const SSLROOTCERT: tls::Key = tls::Key { name: "sslrootcert", example: "sslrootcert=/path/ca.pem" };

/// Of what rustls has no type for there is only the text.
fn tls_advice(error: &postgres::Error, reason: &str) -> String {
    use CertificateError::{NotValidForName, NotValidForNameContext};
    if reason.contains("does not support TLS") {
        "; set ssl = on in postgresql.conf, or sslmode=disable where the network is trusted".to_owned()
    } else if reason.contains("UnsupportedCertVersion") {
        "; the server's certificate is of version 1, which sslmode=require takes and verify-ca and verify-full cannot: make \
         one of version 3, with openssl x509 -req … -copy_extensions copy from a request with -addext \
         subjectAltName=DNS:host, or with openssl req -x509 -addext subjectAltName=DNS:host"
            .to_owned()
    } else if let Some(rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) =
        tls::cause(error)
    {
        "; use the name that is in the certificate's subjectAltName, or sslmode=verify-ca".to_owned()
    } else {
        tls::advice(error, SSLROOTCERT.example)
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
