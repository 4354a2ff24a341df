//! The lake: Delta tables written by what the pipeline hands over.
//!
//! [`store`] is the object store, [`table`] one Delta table: rows go in by
//! [`Table::apply`](table::Table::apply), any number of times, and become visible together by one
//! [`Table::commit`](table::Table::commit). Below: `log` reads a table's log into a `snapshot`,
//! `checkpoint` shortens it, `protocol` says which tables are not for this writer, `schema` puts
//! columns into Delta's words; `files`, `stats`, `read` and `conform` are the Parquet side, `partition` the columns that
//! files don't hold;
//! `index` (filled by `lookup`) and `view` know where each row is, `merge` decides what becomes of the old ones,
//! `compare` compares them with the source's,
//! `rewrite` makes the new files from what `gather` puts together, `compact` makes few of many beside it, in the order of `ordered`, `remake` gives all rows other values, `deletes` (in `z85`) marks rows
//! of files that stay; `rebase` takes up what other writers commit, `vacuum` finds old files.

mod actions;
mod checkpoint;
mod clock;
mod commit;
mod compact;
mod compare;
mod conform;
mod deletes;
mod files;
mod gather;
mod index;
mod log;
mod lookup;
mod merge;
mod ordered;
mod partition;
mod protocol;
mod read;
mod rebase;
mod refusal;
mod remake;
mod rewrite;
mod schema;
mod snapshot;
mod stats;
pub mod store;
pub mod table;
#[cfg(test)]
pub(crate) mod tests;
mod vacuum;
mod view;
mod z85;

pub use commit::Commit;
pub use compact::{Compacted, Compaction, Worth};
pub use compare::{Difference, Seen};
pub use index::cache::Cache;
pub use merge::Merge;
pub use rewrite::Applied;
pub use store::{Compression, Created, Lake, LakeOptions, S3Options, table_path};
pub use table::{Origin, Table};
pub use vacuum::Unused;

/// What files and commits say wrote them.
const ENGINE: &str = concat!("lakeward/", env!("CARGO_PKG_VERSION"));
