//! What a failure of Postgres means to the daemon: the only place that reads its error codes.

use std::fmt;
use std::io;

use crate::error::{Error, ErrorKind};

/// An ErrorResponse of the server (PostgreSQL documentation, "Error and Notice Message Fields").
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// SQLSTATE: the only field that doesn't depend on the server's language.
    pub code: String,
    /// The primary message.
    pub message: String,
    /// More about it.
    pub detail: Option<String>,
    /// What the server proposes.
    pub hint: Option<String>,
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)?;
        for more in [&self.detail, &self.hint].into_iter().flatten() {
            write!(f, ": {more}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Reply {}

impl From<&tokio_postgres::error::DbError> for Reply {
    fn from(error: &tokio_postgres::error::DbError) -> Self {
        Self {
            code: error.code().code().to_owned(),
            message: error.message().to_owned(),
            detail: error.detail().map(str::to_owned),
            hint: error.hint().map(str::to_owned),
        }
    }
}

/// The error for a statement or connection that failed; `doing` says what was being done.
pub fn query(doing: &str, error: tokio_postgres::Error) -> Error {
    if let Some(reply) = error.as_db_error() {
        return server(doing, Reply::from(reply));
    }
    if error.is_closed() || cause::<io::Error>(&error).is_some() {
        return Error::unavailable(format!("the connection was lost while {doing}"))
            .caused_by(error);
    }
    match error.to_string().as_str() {
        text if text.starts_with("invalid configuration") || text.starts_with("authentication") => {
            Error::config(format!("the log-in failed while {doing}"))
                .remedy("check user, password and channel_binding in the source's url")
                .caused_by(error)
        }
        _ => Error::internal(format!("an answer could not be read while {doing}")).caused_by(error),
    }
}

/// The error for a connection that broke or spoke something else; `doing` says what was being done.
pub fn io(doing: &str, error: io::Error) -> Error {
    Error::unavailable(format!("the connection was lost while {doing}")).caused_by(error)
}

/// The error for an ErrorResponse to a command about the slot or the log, where some codes mean
/// that the log is gone.
pub fn log(doing: &str, reply: Reply) -> Error {
    let gone = match reply.code.as_str() {
        // "requested WAL segment has already been removed"; a missing slot or publication.
        "58P01" | "42704" => true,
        // "can no longer get changes from replication slot", "can no longer access …".
        "55000" => reply.message.contains("replication slot"),
        _ => false,
    };
    if gone {
        return Error::gap(format!("Postgres no longer has the log for {doing}"))
            .remedy("the tables are read again, each by its policy")
            .caused_by(reply);
    }
    server(doing, reply)
}

/// The error for an ErrorResponse.
pub fn server(doing: &str, reply: Reply) -> Error {
    let (kind, remedy) = classify(&reply);
    let error = Error::new(kind, format!("Postgres refused {doing}")).caused_by(reply);
    match remedy {
        Some(remedy) => error.remedy(remedy),
        None => error,
    }
}

/// Whether `error` was caused by the server's error `code`.
pub fn is(error: &Error, code: &str) -> bool {
    cause::<Reply>(error).is_some_and(|reply| reply.code == code)
}

/// The kind of an error and what the user can do about it. Codes decide; the message is looked at
/// only where one code stands for several things.
fn classify(reply: &Reply) -> (ErrorKind, Option<&'static str>) {
    use ErrorKind::{Config, Internal, Unavailable};
    let says = |part: &str| reply.message.contains(part);
    match reply.code.as_str() {
        "28P01" => (Config, Some("check user and password in the source's url")),
        "28000" => (
            Config,
            Some(
                "check the role in the source's url, and that pg_hba.conf lets it in from here, \
                 both to the database and for logical replication, with or without TLS as \
                 configured",
            ),
        ),
        "3D000" => (Config, Some("check the database in the source's url")),
        "42501" => (Config, Some("grant the role what is missing; `check` lists the statements")),
        "55000" if says("wal_level") => (Config, Some(WAL_LEVEL)),
        "53400" => (Config, Some("raise max_replication_slots, or drop slots nobody reads")),
        "53300" => (
            Unavailable,
            Some("raise max_connections or max_wal_senders, or close connections nobody needs"),
        ),
        "55006" => (Unavailable, Some("end whatever else reads the slot; tried again meanwhile")),
        "25006" => (Unavailable, Some(STANDBY)),
        "0A000" if says("standby") || says("recovery") => (Unavailable, Some(STANDBY)),
        "0A000" => (Config, None),
        // Somebody else was faster, to make or to drop something.
        "42710" | "42P01" | "3F000" => (Unavailable, None),
        "55P03" => (Unavailable, Some("a lock was not to be had in time; tried again")),
        code => match code.get(..2) {
            Some("08" | "40" | "53" | "55" | "57" | "58" | "XX") => (Unavailable, None),
            _ => (Internal, None),
        },
    }
}

/// The remedy for a server that does not log what is needed.
pub const WAL_LEVEL: &str = "run ALTER SYSTEM SET wal_level = 'logical' and restart the server \
                             (managed services have a parameter for it, such as \
                             rds.logical_replication = 1)";

/// The remedy for a server that is not the primary.
pub const STANDBY: &str = "point the source's url at the primary, or list all hosts with \
                           target_session_attrs=read-write";

/// The first cause of type `T` behind `error`.
fn cause<'a, T: std::error::Error + 'static>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(code: &str, message: &str) -> Reply {
        Reply { code: code.to_owned(), message: message.to_owned(), ..Reply::default() }
    }

    fn kind(code: &str, message: &str) -> ErrorKind {
        server("a statement", reply(code, message)).kind()
    }

    #[test]
    fn codes_say_what_to_do() {
        for code in ["57P01", "57P02", "57P03", "53300", "55006", "08006", "40001", "57014"] {
            assert_eq!(kind(code, ""), ErrorKind::Unavailable, "{code}");
        }
        for code in ["28P01", "28000", "3D000", "42501", "53400"] {
            assert_eq!(kind(code, ""), ErrorKind::Config, "{code}");
        }
        for code in ["58P01", "42704"] {
            assert_eq!(log("reading", reply(code, "")).kind(), ErrorKind::Gap, "{code}");
            assert_ne!(kind(code, ""), ErrorKind::Gap, "{code}");
        }
        assert_eq!(kind("42601", "syntax error"), ErrorKind::Internal);
        assert_eq!(kind("", ""), ErrorKind::Internal);
    }

    #[test]
    fn one_code_may_mean_several_things() {
        let text = "logical decoding requires wal_level >= logical";
        assert_eq!(kind("55000", text), ErrorKind::Config);
        let text = "can no longer get changes from replication slot \"x\"";
        assert_eq!(log("reading", reply("55000", text)).kind(), ErrorKind::Gap);
        assert_eq!(kind("55000", "something else"), ErrorKind::Unavailable);
        let text = "logical decoding cannot be used while in recovery";
        assert_eq!(kind("0A000", text), ErrorKind::Unavailable);
    }

    #[test]
    fn an_error_knows_its_code() {
        let error = server("START_REPLICATION", reply("55006", "in use"));
        assert!(is(&error, "55006") && !is(&error, "55000"));
    }
}
