//! What differs from the plain rule ("the script runs as it is, and the lake ends with the rows
//! of the source"), case by case, with the reason. Nothing here ever allows a wrong row: a table
//! that deviates is stopped with a reason, and what the lake holds of it is rows of the source.

use crate::support::Server;
use crate::support::cases::{Adjust, Deviation, Rule};

fn stopped(table: &str, words: &[&str]) -> Vec<Deviation> {
    let reason = words.iter().map(|w| (*w).to_owned()).collect();
    vec![Deviation { table: table.to_owned(), reason }]
}

/// Cases that also run with the columns that can't be typed configured as text: there every
/// value arrives. (id, columns)
pub const AS_TEXT: &[(&str, &[&str])] =
    &[("PG-081", &["n382", "nsp", "nneg"]), ("PG-082", &["d", "ts", "tz"])];

pub fn adjust(id: &str) -> Adjust {
    match id {
        // Neither table can be updated once it is published, as neither has an identity. The
        // daemon must leave both alone: the owner's statements work, and status says why the
        // tables are not in the lake.
        "PG-013" => Adjust {
            rules: &[("update d set", Rule::Works), ("delete from n", Rule::Works)],
            deviations: [stopped("d", &["replica identity"]), stopped("n", &["replica identity"])]
                .concat(),
            live_only: &["d", "n"],
            ..Adjust::default()
        },
        // The identity becomes NOTHING in the instant before the DELETE. A published table then
        // refuses it by a rule of the server that no reader of the log can lift in between;
        // before the first start there is no publication, and it works. The rows are the same.
        "PG-017" => Adjust {
            rules: &[("delete from t where id=4", Rule::MayFail("replica identity"))],
            ..Adjust::default()
        },
        // Prepared transactions have one namespace per server.
        "PG-031" => {
            Adjust { replace: &[("'p1'", "'p1_{db}'"), ("'p2'", "'p2_{db}'")], ..Adjust::default() }
        }
        "PG-032" => Adjust { replace: &[("'forgotten'", "'held_{db}'")], ..Adjust::default() },
        "PG-052" => Adjust { tables: &["public.*", "s.*"], ..Adjust::default() },
        // The server refuses to make a table of a FOR TABLE publication unlogged; the rows the
        // script then writes are logged ones, and the same.
        "PG-054" => Adjust {
            rules: &[("set unlogged", Rule::MayFail("part of a publication"))],
            ..Adjust::default()
        },
        // Delta Lake has no table without columns.
        "PG-066" => Adjust { deviations: stopped("z", &["column"]), ..Adjust::default() },
        // Delta Lake compares column names without case; the table is refused by name.
        "PG-069" => Adjust { deviations: stopped("t", &["case"]), ..Adjust::default() },
        // NaN fits no decimal: the table stops, and says which value of which column.
        "PG-081" => Adjust { deviations: stopped("t", &["n382", "NaN"]), ..Adjust::default() },
        // Infinity is no date: the table stops, and says which value of which column.
        "PG-082" => Adjust { deviations: stopped("t", &["infinity"]), ..Adjust::default() },
        // The recorder sent the bytes of UTF-8 as LATIN1; here the client says what it sends.
        "PG-095" => Adjust { live_only: &["t"], ..Adjust::default() },
        // The script looks into a slot of its own; its evidence holds positions of that server.
        "PG-100" => Adjust { own_slot: true, live_only: &["evidence"], ..Adjust::default() },
        // The slot to lose is the daemon's.
        "PG-106" => Adjust {
            rules: &[("pg_drop_replication_slot", Rule::DropDaemonSlot)],
            ..Adjust::default()
        },
        // The other table is busy and not captured.
        "PG-111" => Adjust { tables: &["public.t"], ..Adjust::default() },
        _ => Adjust::default(),
    }
}

/// As [`AS_TEXT`], of MySQL and MariaDB.
pub const MYSQL_AS_TEXT: &[(&str, &[&str])] = &[("MY-052", &["d", "dt", "d6", "ts"])];

/// What differs on MySQL and MariaDB.
pub fn adjust_mysql(id: &str, server: Server) -> Adjust {
    match (id, server) {
        // InnoDB carries out the actions below the log; MySQL from 9.6 on above it (Release Notes
        // of 9.6, innodb_native_foreign_keys). Such tables are refused, with the reason.
        ("MY-001", Server::MariaDb) => Adjust {
            deviations: [stopped("c", &["foreign key"]), stopped("s", &["foreign key"])].concat(),
            ..Adjust::default()
        },
        // What a session keeps out of the log no reader of the log can see (Reference Manual,
        // "SET sql_log_bin Statement"); before the first start it is read as all rows are.
        ("MY-010", _) => Adjust { unlogged: true, ..Adjust::default() },
        // The collation's tables are not followed beyond ASCII: the table stops and says which key.
        ("MY-041", _) => Adjust { deviations: stopped("t", &["ASCII"]), ..Adjust::default() },
        // A zero date is no date: the table stops, and says which value of which column.
        ("MY-052", _) => Adjust { deviations: stopped("t", &["zero"]), ..Adjust::default() },
        // The history is among the rows of the log.
        ("MY-066", _) => Adjust { deviations: stopped("t", &["versioning"]), ..Adjust::default() },
        _ => Adjust::default(),
    }
}

/// The same case with its columns as text.
pub fn adjust_as_text(columns: &'static [&'static str]) -> Adjust {
    Adjust { text_columns: columns, ..Adjust::default() }
}

/// Cases whose point is a change in the middle of the snapshot; they run in mode M as well.
pub const IN_SNAPSHOT: &[&str] = &["PG-009", "PG-101", "PG-102", "PG-103", "PG-104"];
