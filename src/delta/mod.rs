//! The lake: Delta tables written by what the pipeline hands over.
//!
//! [`store`] is the object store, [`table`] one Delta table: rows go in by
//! [`Table::apply`](table::Table::apply), any number of times, and become visible together by one
//! [`Table::commit`](table::Table::commit). Below: `log` reads a table's log into a `snapshot`,
//! `checkpoint` shortens it, `protocol` says which tables are not for this writer, `schema` puts
//! columns into Delta's words; `files`, `stats`, `read` and `conform` are the Parquet side;
//! `index` and `view` know where each row is, `rewrite` makes the new files, `vacuum` finds old ones.

mod actions;
mod checkpoint;
mod clock;
mod commit;
mod conform;
mod files;
mod index;
mod log;
mod lookup;
mod protocol;
mod read;
mod rewrite;
mod schema;
mod snapshot;
mod stats;
pub mod store;
pub mod table;
#[cfg(test)]
mod tests;
mod vacuum;
mod view;

pub use commit::Commit;
pub use rewrite::Applied;
pub use store::{Compression, Created, Lake, LakeOptions, S3Options, table_path};
pub use table::Table;
pub use vacuum::Unused;

/// What files and commits say wrote them.
const ENGINE: &str = concat!("lakeward/", env!("CARGO_PKG_VERSION"));
