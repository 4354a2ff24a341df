//! Writing data files.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use lakeward_connectors::{Error, Result};
use object_store::buffered::BufWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::arrow::async_writer::AsyncArrowWriter;
use parquet::basic::{Compression as Codec, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use rustc_hash::{FxHashSet, FxHasher};

use super::actions::Add;
use super::clock::{now_millis, unique};
use super::schema::Layout;
use super::stats::Seen;
use super::store::{Compression, Lake};

/// A row group ends at this many rows or bytes, whichever comes first: the unit in which a file is
/// held in memory while it is written or read.
const GROUP_ROWS: usize = 128 * 1024;
const GROUP_BYTES: usize = 32 << 20;
/// How many rows of a file's first batch decide on its encodings.
const SAMPLE: usize = 4096;

/// A data file being written. Nothing is there until [`finish`](Self::finish) returns.
pub(crate) struct FileWriter {
    lake: Lake,
    table: String,
    name: String,
    layout: Arc<Layout>,
    inner: Option<AsyncArrowWriter<BufWriter>>,
    seen: Seen,
}

/// A data file as written.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    /// Its entry in the log.
    pub(crate) add: Add,
    /// The number of its rows.
    pub(crate) rows: u64,
}

impl FileWriter {
    /// A writer of a new file of the table at `table`.
    pub(crate) fn new(lake: &Lake, table: &str, layout: &Arc<Layout>) -> Self {
        Self {
            lake: lake.clone(),
            table: table.to_owned(),
            name: format!("{}.parquet", unique()),
            layout: Arc::clone(layout),
            inner: None,
            seen: Seen::default(),
        }
    }

    /// Appends rows, which have the columns of the layout.
    pub(crate) async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let writer = match self.inner.take() {
            Some(writer) => self.inner.insert(writer),
            None => {
                let path = format!("{}/{}", self.table, self.name);
                let options = ArrowWriterOptions::new()
                    .with_properties(properties(batch, self.lake.compression()))
                    .with_skip_arrow_metadata(true);
                let schema = Arc::clone(self.layout.arrow());
                let writer = self.lake.writer(&path)?;
                let writer = AsyncArrowWriter::try_new_with_options(writer, schema, options);
                self.inner.insert(writer.map_err(|error| fault(&self.table, error))?)
            }
        };
        writer.write(batch).await.map_err(|error| fault(&self.table, error))?;
        self.seen.add(batch);
        Ok(())
    }

    /// The rows so far.
    pub(crate) fn rows(&self) -> u64 {
        self.seen.rows()
    }

    /// About how large the file is so far.
    pub(crate) fn bytes(&self) -> usize {
        self.inner.as_ref().map_or(0, |writer| writer.bytes_written() + writer.in_progress_size())
    }

    /// Completes the file; `None` when it has no rows.
    pub(crate) async fn finish(self) -> Result<Option<Written>> {
        let Some(mut writer) = self.inner else {
            return Ok(None);
        };
        let file = writer.finish().await.map_err(|error| fault(&self.table, error))?;
        let add = Add {
            path: self.name,
            partition_values: BTreeMap::new(),
            size: i64::try_from(writer.bytes_written()).unwrap_or(i64::MAX),
            modification_time: now_millis(),
            data_change: true,
            stats: Some(self.seen.json(&self.layout, &file)),
            tags: None,
            deletion_vector: None,
        };
        Ok(Some(Written { add, rows: self.seen.rows() }))
    }
}

fn fault(table: &str, error: ParquetError) -> Error {
    let error = match error {
        ParquetError::External(cause) => match cause.downcast::<std::io::Error>() {
            // The store's errors come through the writer as I/O errors.
            Ok(cause) => {
                return Error::unavailable("a data file can't be written")
                    .with("Delta table", table)
                    .caused_by(cause);
            }
            Err(cause) => ParquetError::External(cause),
        },
        error => error,
    };
    Error::internal("a data file can't be written").with("Delta table", table).caused_by(error)
}

fn properties(sample: &RecordBatch, compression: Compression) -> WriterProperties {
    let codec = match compression {
        Compression::Snappy => Codec::SNAPPY,
        Compression::Zstd => Codec::ZSTD(ZstdLevel::default()),
    };
    let mut builder = WriterProperties::builder()
        .set_compression(codec)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_max_row_group_bytes(Some(GROUP_BYTES))
        .set_created_by(super::ENGINE.to_owned());
    for (field, column) in sample.schema().fields().iter().zip(sample.columns()) {
        if !repeats(column.as_ref()) {
            let path = ColumnPath::new(vec![field.name().clone()]);
            builder = builder.set_column_dictionary_enabled(path, false);
        }
    }
    builder.build()
}

/// Whether the values of a column repeat, so that a dictionary of them is worth its making.
fn repeats(column: &dyn Array) -> bool {
    let rows = column.len().min(SAMPLE);
    if rows < 256 {
        return true;
    }
    let hash = |bytes: &[u8]| {
        let mut hasher = FxHasher::default();
        hasher.write(bytes);
        hasher.finish()
    };
    let mut distinct = FxHashSet::default();
    match column.data_type() {
        DataType::Utf8 => {
            let texts = column.as_string::<i32>();
            distinct.extend((0..rows).map(|row| hash(texts.value(row).as_bytes())));
        }
        DataType::Binary => {
            let values = column.as_binary::<i32>();
            distinct.extend((0..rows).map(|row| hash(values.value(row))));
        }
        kind => {
            let Some(width) = kind.primitive_width() else {
                return true;
            };
            let data = column.to_data();
            let Some(buffer) = data.buffers().first() else {
                return true;
            };
            let bytes = buffer.as_slice().get(data.offset() * width..).unwrap_or_default();
            distinct.extend(bytes.chunks_exact(width).take(rows).map(hash));
        }
    }
    distinct.len() * 2 <= rows
}
