//! [`TableSchema::storage`](crate::TableSchema): what the catalog shows of changes that the log
//! doesn't, as marks that [`rewritten`](crate::schema::rewritten) compares.
//!
//! | mark | differs after |
//! |---|---|
//! | `oid=` | the table was dropped and created again, or another took its name |
//! | `rows=` file, or TOAST table and number of columns | a rewrite by `ALTER TABLE` |
//! | `published=` | the publication's column list or row filter changed, or the table left it and came back |
//! | `+leaf…=` file of a partition | a partition with rows came, went, or was truncated |
//! | `?label…=` | a label of an enum was renamed |
//!
//! Why `rows` has two forms, of which one must stay: `VACUUM FULL`, `CLUSTER` and `TRUNCATE` give
//! the table a new file but keep its TOAST table; adding a column changes the number of columns but
//! not the file; a rewrite by `ALTER TABLE` (`ALTER … TYPE … USING`, a volatile default, `SET
//! LOGGED`) changes both, for it also makes a new TOAST table. A table of narrow fixed-width
//! columns has no TOAST table: there every new file counts, also that of a `VACUUM FULL` or
//! `TRUNCATE`.
//!
//! A partition that is new since the last look is no reason to read the table again when it was
//! created as a partition, or has no pages yet: all its rows came through the log.

use std::fmt::Write;

/// The facts, as the catalog shows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Storage {
    pub oid: u32,
    /// `pg_relation_filenode`; 0 for a partitioned table.
    pub file: u32,
    /// `pg_class.reltoastrelid`; 0 without one.
    pub toast: u32,
    /// `pg_class.relnatts`, which counts dropped columns too.
    pub columns: i16,
    /// Column list and row filter of the publication.
    pub published: String,
    pub leaves: Vec<Leaf>,
    /// The labels (object id, digest of the text) of all enums in the table's columns.
    pub labels: Vec<(u32, String)>,
}

/// A partition that holds rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leaf {
    pub oid: u32,
    pub file: u32,
    /// All its rows came through the log, whenever it came.
    pub logged: bool,
}

impl Storage {
    /// The marks, one a line.
    pub(super) fn marks(&self) -> String {
        let Self { oid, file, toast, columns, published, leaves, labels } = self;
        let mut marks = format!("oid={oid}\nrows=f{file}");
        if *toast != 0 {
            // Writing to a String can't fail, here and below.
            let _ = write!(marks, "|t{toast}c{columns}");
        }
        let _ = write!(marks, "\npublished={published}");
        for leaf in leaves {
            let may_come = if leaf.logged { "+" } else { "" };
            let _ = write!(marks, "\n{may_come}leaf{}=f{}", leaf.oid, leaf.file);
        }
        for (label, digest) in labels {
            let _ = write!(marks, "\n?label{label}={digest}");
        }
        marks
    }
}

/// The object id in the marks of a table.
pub(super) fn oid_of(marks: &str) -> Option<u32> {
    marks.lines().find_map(|mark| mark.strip_prefix("oid=")?.parse().ok())
}

/// Whether the marks are of a partitioned table, which has no file of its own.
pub(super) fn is_partitioned(marks: &str) -> bool {
    marks.lines().any(|mark| mark == "rows=f0")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::rewritten;

    fn table() -> Storage {
        Storage { oid: 1, file: 10, toast: 20, columns: 3, ..Storage::default() }
    }

    fn changed(change: impl Fn(&mut Storage)) -> bool {
        let mut next = table();
        change(&mut next);
        rewritten(&table().marks(), &next.marks())
    }

    #[test]
    fn a_rewrite_changes_file_and_toast() {
        assert_eq!(oid_of(&table().marks()), Some(1));
        assert!(!changed(|_| {}));
        assert!(!changed(|t| t.file = 11));
        assert!(!changed(|t| t.columns = 4));
        assert!(changed(|t| (t.file, t.columns) = (11, 4)));
        assert!(changed(|t| (t.file, t.toast) = (11, 21)));
        assert!(changed(|t| t.oid = 2));
        assert!(changed(|t| t.published = "1 2".to_owned()));
    }

    #[test]
    fn without_toast_every_new_file_counts() {
        let bare = Storage { toast: 0, ..table() };
        assert!(rewritten(&bare.marks(), &Storage { file: 11, ..bare.clone() }.marks()));
        // A column that needs TOAST came; no row was written.
        assert!(!rewritten(&bare.marks(), &table().marks()));
    }

    #[test]
    fn partitions_come_empty_or_not() {
        let leaf = |oid, file, logged| Leaf { oid, file, logged };
        let with = |leaves: Vec<Leaf>| Storage { leaves, ..table() }.marks();
        let one = with(vec![leaf(5, 5, true)]);
        assert!(!rewritten(&one, &with(vec![leaf(5, 5, false)])));
        assert!(!rewritten(&one, &with(vec![leaf(5, 5, true), leaf(6, 6, true)])));
        assert!(rewritten(&one, &with(vec![leaf(5, 5, true), leaf(6, 6, false)])));
        assert!(rewritten(&one, &with(vec![leaf(5, 7, true)])));
        assert!(rewritten(&one, &with(vec![])));
    }

    #[test]
    fn labels_are_renamed_not_added() {
        let with = |labels: &[(u32, &str)]| {
            let labels = labels.iter().map(|(oid, text)| (*oid, (*text).to_owned())).collect();
            Storage { labels, ..table() }.marks()
        };
        let two = with(&[(7, "a"), (8, "b")]);
        assert!(!rewritten(&two, &with(&[(7, "a"), (8, "b"), (9, "c")])));
        assert!(!rewritten(&two, &with(&[])));
        assert!(rewritten(&two, &with(&[(7, "a"), (8, "x")])));
    }
}
