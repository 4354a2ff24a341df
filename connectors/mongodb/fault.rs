//! What a failure of MongoDB means to the daemon: the only place that reads its error codes.

use ::mongodb::error::{Error as DriverError, ErrorKind as DriverKind};

use crate::error::{Error, ErrorKind};

/// The server no longer has the log that was asked for, or not with this token: InvalidResumeToken,
/// ChangeStreamFatalError, ChangeStreamHistoryLost, CappedPositionLost, OplogStartMissing.
const LOST: [i32; 5] = [260, 280, 286, 136, 120];

/// The error for something that the driver could not do; `doing` says what it was.
pub fn fault(doing: &str, error: DriverError) -> Error {
    let (kind, remedy) = classify(&error);
    let message = match kind {
        ErrorKind::Unavailable => format!("MongoDB could not be reached, or not in time, {doing}"),
        ErrorKind::Gap => format!("MongoDB no longer has the log for {doing}"),
        _ => format!("MongoDB refused {doing}"),
    };
    let fault = Error::new(kind, message).caused_by(Said::from(&error));
    match remedy {
        Some(remedy) => fault.remedy(remedy),
        None => fault,
    }
}

/// What the driver says, without the parts of a document that its errors may quote.
#[derive(Debug)]
struct Said(String);

impl From<&DriverError> for Said {
    fn from(error: &DriverError) -> Self {
        Self(match error.kind.as_ref() {
            DriverKind::Command(command) => {
                format!("{} ({} {})", command.message, command.code, command.code_name)
            }
            kind => kind.to_string(),
        })
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Said {}

/// The kind of an error and what the user can do about it.
fn classify(error: &DriverError) -> (ErrorKind, Option<&'static str>) {
    use ErrorKind::{Config, Internal, Unavailable};
    match error.kind.as_ref() {
        DriverKind::Command(command) => of_code(command.code),
        DriverKind::Authentication { .. } => (Config, Some(LOGIN)),
        DriverKind::InvalidArgument { .. } => (Config, Some("check the source's url")),
        DriverKind::InvalidTlsConfig { .. } => {
            (Config, Some("check the tls options in the source's url"))
        }
        DriverKind::Io(_)
        | DriverKind::ConnectionPoolCleared { .. }
        | DriverKind::ServerSelection { .. }
        | DriverKind::DnsResolve { .. } => {
            (Unavailable, Some("check that the hosts in the source's url answer from here"))
        }
        _ => (Internal, None),
    }
}

const LOGIN: &str = "check user, password and authSource in the source's url";

/// By the codes of MongoDB's `error_codes.yml`.
fn of_code(code: i32) -> (ErrorKind, Option<&'static str>) {
    use ErrorKind::{Config, Gap, Internal, Unavailable};
    match code {
        code if LOST.contains(&code) => {
            (Gap, Some("the collections are read again, each by its policy"))
        }
        // AuthenticationFailed.
        18 => (Config, Some(LOGIN)),
        // Unauthorized.
        13 => (Config, Some("grant the user what is missing; `check` lists it")),
        // "The $changeStream stage is only supported on replica sets".
        40573 => (Config, Some("make the server a replica set; one member is enough")),
        // HostUnreachable, HostNotFound, NetworkTimeout, ShutdownInProgress, PrimarySteppedDown,
        // ExceededTimeLimit, SocketException, NotWritablePrimary, Interrupted*, CursorNotFound,
        // CursorKilled, MaxTimeMSExpired, LockTimeout, WriteConflict, ReadConcernMajorityNotAvailableYet,
        // NodeNotFound, StaleShardVersion, SnapshotTooOld, ClusterTimeFailsRateLimiter, and the like.
        6 | 7 | 24 | 43 | 50 | 63 | 89 | 91 | 112 | 133 | 134 | 150 | 189 | 211 | 234 | 237
        | 239 | 246 | 262 | 290 | 402 | 462 | 9001 | 10058 | 10107 | 11600 | 11601 | 11602
        | 13388 | 13435 | 13436 | 17405 => (Unavailable, None),
        _ => (Internal, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_say_what_to_do() {
        for code in [43, 50, 91, 189, 10107, 11600, 13435] {
            assert_eq!(of_code(code).0, ErrorKind::Unavailable, "{code}");
        }
        for code in [260, 280, 286] {
            assert_eq!(of_code(code).0, ErrorKind::Gap, "{code}");
        }
        for code in [13, 18, 40573] {
            let (kind, remedy) = of_code(code);
            assert_eq!((kind, remedy.is_some()), (ErrorKind::Config, true), "{code}");
        }
        assert_eq!(of_code(1).0, ErrorKind::Internal);
    }

    #[test]
    fn an_argument_that_can_not_be_right_is_the_users() {
        let error = ::mongodb::options::ServerAddress::parse("host:port").unwrap_err();
        let fault = fault("opening a connection", error);
        assert_eq!(fault.kind(), ErrorKind::Config);
        assert!(fault.full().contains("port") && fault.full().contains("url"), "{fault}");
    }
}
