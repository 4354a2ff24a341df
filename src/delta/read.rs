//! Reading data files, our own and those of other engines, as columns of the table's layout: a few
//! rows at a time, from ranges of the object.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use lakeward_connectors::{Error, Result};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, RowSelection, RowSelector,
};
use parquet::arrow::async_reader::{
    AsyncFileReader, MetadataFetch, ParquetRecordBatchStreamBuilder,
};
use parquet::basic::Type as Physical;
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData,
};

use super::actions::Add;
use super::conform::conform;
use super::log::fault;
use super::partition::Values;
use super::store::Lake;

/// Files up to this size are read with one request.
const WHOLE: u64 = 1 << 20;
/// How much of a larger file is read first, in the hope that it holds the footer.
const TAIL: u64 = 64 << 10;
/// How many rows are decoded at once, unless they are large.
const BATCH_ROWS: usize = 8192;
/// About how many bytes of rows are decoded at once.
const BATCH_BYTES: usize = 4 << 20;
/// A decoded value takes about so much, however small it is in its file.
pub(super) const VALUE_BYTES: usize = 8;

/// Rows of a data file, in the file's order.
pub(crate) type Batches = BoxStream<'static, Result<RecordBatch>>;

/// The path of a data file, relative to the lake.
///
/// # Errors
/// When the file lies outside the table's directory.
pub(crate) fn file_path(table: &str, path: &str) -> Result<String> {
    let path = percent_decode(path);
    if path.starts_with('/') || path.contains("://") {
        return Err(fault(table, "a data file lies outside the table's directory")
            .with("path", path)
            .remedy("write to another table than a shallow clone"));
    }
    Ok(format!("{table}/{path}"))
}

/// A path of the log, which is written as in a URL, as it is.
pub(crate) fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 3;
            }
            (byte, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(decoded).unwrap_or_else(|_| text.to_owned())
}

/// A data file opened for reading.
#[derive(Clone)]
pub(crate) struct FileReader {
    table: String,
    input: ObjectReader,
    metadata: ArrowReaderMetadata,
    /// The values of columns that the file doesn't hold.
    values: Values,
}

impl FileReader {
    /// Reads the footer of a data file.
    pub(crate) async fn open(lake: &Lake, table: &str, add: &Add) -> Result<Self> {
        let size = u64::try_from(add.size).unwrap_or(0);
        let path = file_path(table, &add.path)?;
        let mut input = ObjectReader { lake: lake.clone(), path, size, tail: None };
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let loaded = ArrowReaderMetadata::load_async(&mut input, options.clone()).await;
        let mut metadata = loaded.map_err(|error| read_fault(table, &add.path, error))?;
        if let Some(schema) = without_int96(&metadata) {
            let file = Arc::clone(metadata.metadata());
            metadata = ArrowReaderMetadata::try_new(file, options.with_schema(schema))
                .map_err(|error| read_fault(table, &add.path, error))?;
        }
        let values = add.partition_values.clone();
        Ok(Self { table: table.to_owned(), input, metadata, values })
    }

    /// The number of rows.
    pub(crate) fn rows(&self) -> u64 {
        u64::try_from(self.metadata.metadata().file_metadata().num_rows()).unwrap_or(0)
    }

    /// The row groups.
    pub(crate) fn groups(&self) -> &[RowGroupMetaData] {
        self.metadata.metadata().row_groups()
    }

    /// Whether this writer wrote the file.
    pub(crate) fn is_own(&self) -> bool {
        let by = self.metadata.metadata().file_metadata().created_by();
        by.is_some_and(|by| by.starts_with("lakeward/"))
    }

    /// The bytes of a row group of a file of this writer, and where in the file they start.
    pub(crate) async fn group_bytes(&mut self, group: &RowGroupMetaData) -> Result<(u64, Bytes)> {
        let ranges = group.columns().iter().map(ColumnChunkMetaData::byte_range);
        let (mut start, mut end) = (u64::MAX, 0);
        for (from, length) in ranges {
            start = start.min(from);
            end = end.max(from + length);
        }
        let whole = start.min(end)..end;
        let found = self.input.ranges(Vec::from([whole])).await?;
        let bytes = found.into_iter().next();
        Ok((start, bytes.ok_or_else(|| Error::internal("a store gave no bytes for a range"))?))
    }

    /// The rows, or those of `only` (ascending), with the columns `wanted`: a column that the file
    /// lacks is null.
    pub(crate) fn batches(self, wanted: &SchemaRef, only: Option<&[u64]>) -> Result<Batches> {
        self.some_batches(wanted, only, None)
    }

    /// The rows of a row group, with the columns `wanted`.
    pub(crate) fn group_batches(&self, wanted: &SchemaRef, group: usize) -> Result<Batches> {
        self.clone().some_batches(wanted, None, Some(group))
    }

    fn some_batches(
        self,
        wanted: &SchemaRef,
        only: Option<&[u64]>,
        group: Option<usize>,
    ) -> Result<Batches> {
        let Self { table, input, metadata, values } = self;
        let path = input.path.clone();
        let found = metadata.schema();
        let roots = wanted.fields().iter().filter_map(|field| found.index_of(field.name()).ok());
        let mask = ProjectionMask::roots(metadata.parquet_schema(), roots);
        let batch_rows = batch_rows(metadata.metadata());
        let mut builder = ParquetRecordBatchStreamBuilder::new_with_metadata(input, metadata)
            .with_projection(mask)
            .with_batch_size(batch_rows);
        if let Some(only) = only {
            builder = builder.with_row_selection(selection(only));
        }
        if let Some(group) = group {
            builder = builder.with_row_groups(vec![group]);
        }
        let stream = builder.build().map_err(|error| read_fault(&table, &path, error))?;
        let wanted = Arc::clone(wanted);
        let batches = stream.map(move |batch| {
            let batch = batch.map_err(|error| read_fault(&table, &path, error))?;
            conform(&batch, &wanted, &values)
                .map_err(|error| error.with("Delta table", &table).with("file", &path))
        });
        Ok(batches.boxed())
    }
}

/// The selection of single rows, ascending.
fn selection(rows: &[u64]) -> RowSelection {
    let mut selectors = Vec::new();
    let mut next = 0_u64;
    for &row in rows {
        if row > next {
            selectors.push(RowSelector::skip((row - next) as usize));
        }
        selectors.push(RowSelector::select(1));
        next = row + 1;
    }
    selectors.into()
}

/// So many rows at once that they take about [`BATCH_BYTES`]. What the file says of its size is that of
/// encoded values: those of a dictionary take more.
fn batch_rows(file: &ParquetMetaData) -> usize {
    let columns = file.file_metadata().schema_descr().num_columns();
    let largest = file.row_groups().iter().map(|group| {
        let rows = usize::try_from(group.num_rows()).unwrap_or(1).max(1);
        usize::try_from(group.total_byte_size()).unwrap_or(0) / rows
    });
    let row = largest.max().unwrap_or(0) + columns * VALUE_BYTES;
    (BATCH_BYTES / row.max(1)).clamp(1, BATCH_ROWS)
}

/// The file's schema with old timestamps (INT96) read as microseconds, since nanoseconds don't
/// reach far; `None` when there are none.
fn without_int96(metadata: &ArrowReaderMetadata) -> Option<SchemaRef> {
    let columns = metadata.parquet_schema().columns();
    if !columns.iter().any(|column| column.physical_type() == Physical::INT96) {
        return None;
    }
    let fields = metadata.schema().fields().iter().map(micros);
    Some(Arc::new(Schema::new(fields.collect::<Vec<FieldRef>>())))
}

fn micros(field: &FieldRef) -> FieldRef {
    let kind = match field.data_type() {
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
            DataType::Timestamp(TimeUnit::Microsecond, zone.clone())
        }
        DataType::List(item) => DataType::List(micros(item)),
        _ => return Arc::clone(field),
    };
    Arc::new(Field::new(field.name(), kind, field.is_nullable()))
}

fn read_fault(table: &str, path: &str, error: ParquetError) -> Error {
    let error = match error {
        ParquetError::External(cause) => match cause.downcast::<Error>() {
            Ok(cause) => return *cause,
            Err(cause) => ParquetError::External(cause),
        },
        error => error,
    };
    fault(table, "a data file can't be read")
        .with("file", path)
        .remedy("`lakeward snapshot` reads the table again")
        .caused_by(error)
}

/// An object read by ranges.
#[derive(Clone)]
struct ObjectReader {
    lake: Lake,
    path: String,
    size: u64,
    /// The end of the object, once it has been read, and where it starts.
    tail: Option<(u64, Bytes)>,
}

impl ObjectReader {
    async fn ranges(&mut self, ranges: Vec<Range<u64>>) -> Result<Vec<Bytes>> {
        if self.tail.is_none() {
            let start = if self.size <= WHOLE { 0 } else { self.size - TAIL };
            let range = start..self.size;
            let bytes = self.lake.get_ranges(&self.path, std::slice::from_ref(&range)).await?;
            self.tail = bytes.into_iter().next().map(|bytes| (start, bytes));
        }
        if let Some((start, bytes)) = &self.tail {
            let inside = ranges.iter().map(|range| {
                let from = usize::try_from(range.start.checked_sub(*start)?).ok()?;
                let to = usize::try_from(range.end.checked_sub(*start)?).ok()?;
                (from <= to && to <= bytes.len()).then(|| bytes.slice(from..to))
            });
            if let Some(found) = inside.collect::<Option<Vec<_>>>() {
                return Ok(found);
            }
        }
        self.lake.get_ranges(&self.path, &ranges).await
    }
}

impl AsyncFileReader for ObjectReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move {
            let mut found = self.get_byte_ranges(vec![range]).await?;
            found.pop().ok_or_else(|| ParquetError::General("no bytes".to_owned()))
        }
        .boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        let found = self.ranges(ranges);
        async move { found.await.map_err(|error| ParquetError::External(Box::new(error))) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move {
            let size = self.size;
            let reader = ParquetMetaDataReader::new();
            reader.load_and_finish(Fetch(self), size).await.map(Arc::new)
        }
        .boxed()
    }
}

struct Fetch<'a>(&'a mut ObjectReader);

impl MetadataFetch for Fetch<'_> {
    fn fetch(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        self.0.get_bytes(range)
    }
}
