//! The two things a commit takes from outside: the time it is stamped with and a name nobody else
//! has. Nothing is ever decided by either.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970-01-01 00:00 UTC, as Delta stamps actions.
pub(crate) fn now_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A name that nobody else has: of a file, of a commit.
pub(crate) fn unique() -> String {
    uuid::Uuid::new_v4().to_string()
}
