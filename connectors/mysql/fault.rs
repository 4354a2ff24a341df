//! What a failure of MySQL or MariaDB means to the daemon: the only place that reads its error
//! codes (MySQL documentation, "Server Error Message Reference").

use std::fmt;
use std::io;

use super::input::Input;
use crate::error::{Error, ErrorKind};
use crate::schema::TableId;

/// An ERR packet.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// The server's number of it.
    pub code: u16,
    /// What it says.
    pub message: String,
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for Reply {}

impl Reply {
    /// Reads an ERR packet, whose first byte is 0xff.
    pub fn parse(packet: &[u8]) -> Self {
        let mut input = Input(packet.get(1..).unwrap_or_default());
        let code = input.u16().unwrap_or_default();
        if input.0.first() == Some(&b'#') {
            input.bytes(6);
        }
        Self { code, message: String::from_utf8_lossy(input.rest()).into_owned() }
    }
}

/// The remedy for rights that are missing.
pub const RIGHTS: &str = "GRANT SELECT, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO the user";

/// The error for a connection that broke; `doing` says what was being done.
pub fn io(doing: &str, error: io::Error) -> Error {
    Error::unavailable(format!("the connection was lost while {doing}")).caused_by(error)
}

/// The error for an answer that is none.
pub fn malformed(doing: &str) -> Error {
    Error::unavailable(format!("the server's answer could not be read while {doing}"))
}

/// The error for an ERR packet.
pub fn server(doing: &str, reply: Reply) -> Error {
    let (kind, remedy) = classify(&reply);
    let error = Error::new(kind, format!("the server refused {doing}")).caused_by(reply);
    match remedy {
        Some(remedy) => error.remedy(remedy),
        None => error,
    }
}

/// The error for an ERR packet in answer to a request for the log.
pub fn log(reply: Reply) -> Error {
    let says = |part: &str| reply.message.contains(part);
    // ER_MASTER_FATAL_ERROR_READING_BINLOG stands for everything that may be wrong with a log.
    if reply.code != 1236 {
        return server("reading the log", reply);
    }
    if says("same server_uuid/server_id") || says("same server_uuid") {
        return Error::config("another reader of the log has the same server_id")
            .remedy("set server_id of the source to a number that no replica has")
            .caused_by(reply);
    }
    if says("log event entry exceeded max_allowed_packet") || says("bogus data in log event") {
        return Error::config("the server can't send an event of its own log")
            .remedy("SET GLOBAL max_allowed_packet = 1073741824")
            .caused_by(reply);
    }
    Error::gap("the server no longer has the log that follows what the lake holds")
        .remedy("the tables are read again; keep the log longer (binlog_expire_logs_seconds)")
        .caused_by(reply)
}

/// The error for an ERR packet while a table was read: of the table, unless trying again may help.
pub fn read(table: &TableId, reply: Reply) -> Error {
    // No such table, no such column, table definition has changed.
    if matches!(reply.code, 1146 | 1054 | 1412 | 1051 | 1049) {
        return Error::table(table.clone(), "it changed while it was read").caused_by(reply);
    }
    match classify(&reply).0 {
        ErrorKind::Unavailable => server("to read a table", reply).with("table", table),
        _ => Error::table(table.clone(), "it can't be read").caused_by(reply),
    }
}

/// Whether `error` was caused by the server's error `code`.
pub fn is(error: &Error, code: u16) -> bool {
    reply(error).is_some_and(|reply| reply.code == code)
}

/// The ERR packet behind `error`.
pub fn reply(error: &Error) -> Option<&Reply> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<Reply>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// The kind of an error and what the user can do about it.
fn classify(reply: &Reply) -> (ErrorKind, Option<&'static str>) {
    use ErrorKind::{Config, Internal, Unavailable};
    match reply.code {
        // Access denied: user, database; plugin not loaded; password expired; account locked.
        1045 | 1044 | 1524 | 1862 | 1820 | 3118 | 1698 => {
            (Config, Some("check user, password and database in the source's url"))
        }
        1049 => (Config, Some("check the database in the source's url")),
        1130 => (Config, Some("let the user in from this host (CREATE USER 'name'@'host')")),
        // Missing privileges for a statement, a table, a column, a command.
        1227 | 1142 | 1143 | 1370 => (Config, Some(RIGHTS)),
        // Secure transport required.
        3159 => (Config, Some("leave ssl-mode=disabled out of the source's url")),
        1040 | 1203 | 1226 => {
            (Unavailable, Some("raise max_connections, or close what nobody needs"))
        }
        // Lock wait timeout, deadlock, killed query, shutdown, timeouts, net errors, out of space.
        1205
        | 1213
        | 1317
        | 1053
        | 3024
        | 1969
        | 1927
        | 1158..=1161
        | 1152
        | 1184
        | 1021
        | 1041
        | 1037
        | 1038
        | 1077
        | 1078
        | 1079
        | 4031
        | 1129 => (Unavailable, None),
        _ => (Internal, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(code: u16, message: &str) -> Reply {
        Reply { code, message: message.to_owned() }
    }

    #[test]
    fn codes_say_what_to_do() {
        for code in [1205, 1213, 1053, 1040, 1927] {
            assert_eq!(server("x", reply(code, "")).kind(), ErrorKind::Unavailable, "{code}");
        }
        for code in [1045, 1227, 1142, 3159] {
            assert_eq!(server("x", reply(code, "")).kind(), ErrorKind::Config, "{code}");
        }
        assert_eq!(server("x", reply(1064, "syntax")).kind(), ErrorKind::Internal);
        assert!(is(&server("x", reply(1064, "syntax")), 1064));
    }

    #[test]
    fn one_code_of_the_log_means_several_things() {
        let gone = "Cannot replicate because the source purged required binary logs";
        assert_eq!(log(reply(1236, gone)).kind(), ErrorKind::Gap);
        let other = "A replica with the same server_uuid/server_id as this replica has connected";
        assert_eq!(log(reply(1236, other)).kind(), ErrorKind::Config);
    }

    #[test]
    fn an_err_packet_is_read_with_and_without_a_state() {
        let packet = b"\xff\x15\x04#28000Access denied";
        assert_eq!(Reply::parse(packet).to_string(), "Access denied (1045)");
        assert_eq!(Reply::parse(b"\xff\x15\x04Denied").message, "Denied");
        assert_eq!(Reply::parse(b"\xff").code, 0);
    }
}
