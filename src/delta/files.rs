//! Writing data files.

use std::hash::Hasher;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, SchemaRef};
use bytes::buf::Reader;
use bytes::{Buf, Bytes};
use lakeward_connectors::{Error, Result};
use object_store::buffered::BufWriter;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{
    ArrowColumnWriter, ArrowRowGroupWriterFactory, ArrowWriterOptions, compute_leaves,
};
use parquet::basic::{Compression as Codec, ZstdLevel};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;
use rustc_hash::{FxHashSet, FxHasher};
use tokio::io::AsyncWriteExt;

use super::actions::Add;
use super::clock::{now_millis, unique};
use super::gather::arrow_fault;
use super::partition::{self, Values};
use super::schema::Layout;
use super::stats::Seen;
use super::store::{Compression, Lake};

/// A row group ends at this many rows or bytes, whichever comes first: the unit in which a file is
/// held in memory while it is written or read. (Unit tests have small ones.)
const GROUP_ROWS: usize = if cfg!(test) { 8 } else { 128 * 1024 };
const GROUP_BYTES: usize = 32 << 20;
/// A row group ends, too, when its making takes so much: what repeats takes more than in the file.
const GROUP_MEMORY: usize = 64 << 20;
/// The encoder keeps eight bytes of each value of a page that has a dictionary: a page ends when those of
/// all columns take so much. That is as usual (20,000 rows) up to 209 columns.
const PAGE_MEMORY: usize = 32 << 20;
const PAGE_ROWS: usize = 20_000;
/// A row group of fewer rows is not copied as it is, so that small ones come together.
const COPIED_ROWS: i64 = if cfg!(test) { 3 } else { 32 * 1024 };
/// How many rows of a file's first batch decide on its encodings.
const SAMPLE: usize = 4096;

/// A data file being written. Nothing is there until [`finish`](Self::finish) returns.
pub(crate) struct FileWriter {
    lake: Lake,
    table: String,
    name: String,
    /// The columns that the file holds.
    layout: Arc<Layout>,
    /// Their places among those of the table, unless it holds all.
    places: Option<Vec<usize>>,
    values: Values,
    inner: Option<Encoder>,
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
    /// A writer of a new file of the table at `table`, for rows of the partition with `values`.
    pub(crate) fn new(lake: &Lake, table: &str, layout: &Arc<Layout>, values: &Values) -> Self {
        let places = (!layout.partition().is_empty()).then(|| layout.stored());
        let stored = places.as_ref().map(|places| Arc::new(layout.project(places)));
        Self {
            lake: lake.clone(),
            table: table.to_owned(),
            name: format!("{}{}.parquet", partition::folder(values), unique()),
            layout: stored.unwrap_or_else(|| Arc::clone(layout)),
            places,
            values: values.clone(),
            inner: None,
            seen: Seen::default(),
        }
    }

    /// Appends rows, which have the columns of the table.
    pub(crate) async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let stored = self.places.as_ref().map(|places| batch.project(places)).transpose();
        let stored = stored.map_err(arrow_fault)?;
        let batch = stored.as_ref().unwrap_or(batch);
        if self.inner.is_none() {
            self.inner = Some(self.encoder(properties(batch, self.lake.compression()))?);
        }
        if let Some(encoder) = &mut self.inner {
            encoder.write(batch).await.map_err(|error| fault(&self.table, error))?;
        }
        self.seen.add(batch);
        Ok(())
    }

    /// Whether a row group of another file can be copied as it is, rather than decoded and written
    /// again: it has the same columns, and neither it nor what waits to become a row group here
    /// is a small one.
    pub(crate) fn takes(&self, group: &RowGroupMetaData) -> Result<bool> {
        let waiting = self.inner.as_ref().map_or(0, |encoder| encoder.rows);
        if group.num_rows() < COPIED_ROWS || (waiting > 0 && waiting < COPIED_ROWS as usize) {
            return Ok(false);
        }
        let made;
        let encoder = match &self.inner {
            Some(encoder) => encoder,
            None => {
                made = self.encoder(WriterProperties::builder())?;
                &made
            }
        };
        let (old, new) = (group.schema_descr(), encoder.file.schema_descr());
        Ok(old.columns() == new.columns() && old.root_schema() == new.root_schema())
    }

    /// Appends a row group that [`takes`](Self::takes) has said yes to: its bytes, as they stand
    /// in its file from `start` on.
    pub(crate) async fn copy(
        &mut self,
        group: &RowGroupMetaData,
        start: u64,
        bytes: Bytes,
        without_nan: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<()> {
        if self.inner.is_none() {
            let codec = codec(self.lake.compression());
            self.inner =
                Some(self.encoder(base_properties(codec, self.layout.arrow().fields().len()))?);
        }
        if let Some(encoder) = &mut self.inner {
            let copied = encoder.copy(group, &Chunk { start, bytes }).await;
            copied.map_err(|error| fault(&self.table, error))?;
        }
        self.seen.add_copied(group, &self.layout, without_nan);
        Ok(())
    }

    fn encoder(&self, properties: WriterPropertiesBuilder) -> Result<Encoder> {
        let path = format!("{}/{}", self.table, self.name);
        let schema = Arc::clone(self.layout.arrow());
        Encoder::new(self.lake.writer(&path)?, schema, properties.build())
            .map_err(|error| fault(&self.table, error))
    }

    /// The rows so far.
    pub(crate) fn rows(&self) -> u64 {
        self.seen.rows()
    }

    /// About how large the file is so far.
    pub(crate) fn bytes(&self) -> usize {
        self.inner.as_ref().map_or(0, |encoder| encoder.file.bytes_written() + encoder.waiting())
    }

    /// Completes the file; `None` when it has no rows.
    pub(crate) async fn finish(self) -> Result<Option<Written>> {
        let Some(mut encoder) = self.inner else {
            return Ok(None);
        };
        let file = encoder.finish().await.map_err(|error| fault(&self.table, error))?;
        let add = Add {
            path: self.name,
            partition_values: self.values,
            size: i64::try_from(encoder.file.bytes_written()).unwrap_or(i64::MAX),
            modification_time: now_millis(),
            data_change: true,
            stats: Some(self.seen.json(&self.layout, &file)),
            tags: None,
            deletion_vector: None,
        };
        Ok(Some(Written { add, rows: self.seen.rows() }))
    }
}

/// Rows → Parquet → an object, a row group at a time.
struct Encoder {
    file: SerializedFileWriter<Vec<u8>>,
    factory: ArrowRowGroupWriterFactory,
    schema: SchemaRef,
    /// The row group in the making, and its rows.
    columns: Vec<ArrowColumnWriter>,
    rows: usize,
    groups: usize,
    sink: BufWriter,
}

impl Encoder {
    fn new(
        sink: BufWriter,
        schema: SchemaRef,
        properties: WriterProperties,
    ) -> Result<Self, ParquetError> {
        let options =
            ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(Vec::new(), Arc::clone(&schema), options)?;
        let (file, factory) = writer.into_serialized_writer()?;
        Ok(Self { file, factory, schema, columns: Vec::new(), rows: 0, groups: 0, sink })
    }

    async fn write(&mut self, batch: &RecordBatch) -> Result<(), ParquetError> {
        let mut start = 0;
        while start < batch.num_rows() {
            let rows = (batch.num_rows() - start).min(GROUP_ROWS - self.rows);
            self.encode(&batch.slice(start, rows))?;
            start += rows;
            let full = self.waiting() >= GROUP_BYTES || self.memory() >= GROUP_MEMORY;
            if self.rows >= GROUP_ROWS || full {
                self.end_group().await?;
            }
        }
        Ok(())
    }

    fn encode(&mut self, batch: &RecordBatch) -> Result<(), ParquetError> {
        if self.columns.is_empty() {
            self.columns = self.factory.create_column_writers(self.groups)?;
        }
        let mut columns = self.columns.iter_mut();
        for (field, array) in self.schema.fields().iter().zip(batch.columns()) {
            for leaf in compute_leaves(field, array)? {
                let column = columns.next();
                column
                    .ok_or_else(|| ParquetError::General("a column is missing".to_owned()))?
                    .write(&leaf)?;
            }
        }
        self.rows += batch.num_rows();
        Ok(())
    }

    /// About how many bytes the row group in the making will take.
    fn waiting(&self) -> usize {
        self.columns.iter().map(ArrowColumnWriter::get_estimated_total_bytes).sum()
    }

    /// The bytes of memory that the row group in the making takes.
    fn memory(&self) -> usize {
        self.columns.iter().map(ArrowColumnWriter::memory_size).sum()
    }

    async fn end_group(&mut self) -> Result<(), ParquetError> {
        if self.rows == 0 {
            return Ok(());
        }
        let waiting = self.waiting();
        self.file.inner_mut().reserve(waiting + waiting / 16);
        let mut group = self.file.next_row_group()?;
        for column in self.columns.drain(..) {
            column.close()?.append_to_row_group(&mut group)?;
        }
        group.close()?;
        self.rows = 0;
        self.groups += 1;
        self.send().await
    }

    async fn copy(&mut self, group: &RowGroupMetaData, chunk: &Chunk) -> Result<(), ParquetError> {
        self.end_group().await?;
        self.file.inner_mut().reserve(chunk.bytes.len());
        let mut copied = self.file.next_row_group()?;
        for column in group.columns() {
            let close = ColumnCloseResult {
                bytes_written: u64::try_from(column.compressed_size()).unwrap_or(0),
                rows_written: u64::try_from(group.num_rows()).unwrap_or(0),
                metadata: column.clone(),
                bloom_filter: None,
                column_index: None,
                offset_index: None,
            };
            copied.append_column(chunk, close)?;
        }
        copied.close()?;
        self.groups += 1;
        self.send().await
    }

    async fn finish(&mut self) -> Result<ParquetMetaData, ParquetError> {
        self.end_group().await?;
        let metadata = self.file.finish()?;
        self.send().await?;
        self.sink.shutdown().await?;
        Ok(metadata)
    }

    /// Hands what is encoded to the store.
    async fn send(&mut self) -> Result<(), ParquetError> {
        self.file.flush()?;
        let bytes = std::mem::take(self.file.inner_mut());
        let sent = self.sink.put(bytes.into()).await;
        sent.map_err(|error| ParquetError::External(Box::new(std::io::Error::other(error))))
    }
}

/// The bytes of a row group, by their place in the file that they come from.
struct Chunk {
    start: u64,
    bytes: Bytes,
}

impl Length for Chunk {
    fn len(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl ChunkReader for Chunk {
    type T = Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let length = self.len().saturating_sub(start);
        Ok(self.get_bytes(start, usize::try_from(length).unwrap_or(0))?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let from = start.checked_sub(self.start).and_then(|from| usize::try_from(from).ok());
        let range = from.map(|from| from..from.saturating_add(length));
        match range.filter(|range| range.end <= self.bytes.len()) {
            Some(range) => Ok(self.bytes.slice(range)),
            None => Err(ParquetError::EOF("a row group is shorter than its file says".to_owned())),
        }
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

fn codec(compression: Compression) -> Codec {
    match compression {
        Compression::Snappy => Codec::SNAPPY,
        Compression::Zstd => Codec::ZSTD(ZstdLevel::default()),
    }
}

/// The properties of a file of so many columns.
fn base_properties(codec: Codec, columns: usize) -> WriterPropertiesBuilder {
    let rows = PAGE_MEMORY / size_of::<u64>() / columns.max(1);
    WriterProperties::builder()
        .set_compression(codec)
        .set_data_page_row_count_limit(rows.clamp(1, PAGE_ROWS))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_created_by(super::ENGINE.to_owned())
}

fn properties(sample: &RecordBatch, compression: Compression) -> WriterPropertiesBuilder {
    let mut builder = base_properties(codec(compression), sample.num_columns());
    for (field, column) in sample.schema().fields().iter().zip(sample.columns()) {
        if !repeats(column.as_ref()) {
            let path = ColumnPath::new(vec![field.name().clone()]);
            builder = builder.set_column_dictionary_enabled(path, false);
        }
    }
    builder
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
