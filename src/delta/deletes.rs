//! Deletion vectors: which rows of a data file are deleted, as a set of row numbers that lies
//! beside the file ("Deletion Vectors" and "Deletion Vector Format" in Delta's PROTOCOL.md).
//!
//! A vector stands in the log itself (storage type `i`), in a file named by a UUID (`u`) or in one
//! named by its whole path (`p`). All are read; what is written here is `u`, the vectors of one
//! commit in one file.

use bytes::Bytes;
use lakeward_connectors::{Error, Result};
use roaring::{RoaringBitmap, RoaringTreemap};
use url::Url;
use uuid::Uuid;

use super::actions::DeletionVector;
use super::log::fault;
use super::read::percent_decode;
use super::store::Lake;
use super::z85;

/// Begins every vector, little-endian: a 64-bit Roaring bitmap in its portable form follows.
const MAGIC: u32 = 1_681_511_377;
/// Begins a vector in the older form that the protocol's inline example is in, big-endian: the
/// number of 32-bit bitmaps follows, and each with its size before it.
const OLDER_MAGIC: u32 = 1_681_511_376;
/// The first byte of a file of vectors.
const VERSION: u8 = 1;
/// How many letters of a `u` vector's path are its UUID; what is before them is a directory.
const UUID_LETTERS: usize = 20;

/// The deleted rows of a data file, by their number in the file.
pub(crate) type Rows = RoaringTreemap;

/// The vectors of one commit, to be one file.
pub(crate) struct VectorFile {
    id: Uuid,
    bytes: Vec<u8>,
}

impl VectorFile {
    /// A file without a vector, of a name nobody else has.
    pub(crate) fn new() -> Self {
        Self { id: Uuid::new_v4(), bytes: vec![VERSION] }
    }

    /// Its name in the table's directory.
    pub(crate) fn name(&self) -> String {
        name(&self.id)
    }

    /// Appends a vector, and says how the log names it.
    ///
    /// # Errors
    /// When the file grows beyond what the log can address (2 GiB).
    pub(crate) fn push(&mut self, rows: &Rows) -> Result<DeletionVector> {
        let long = || Error::internal("a file of deletion vectors would be too long");
        let offset = i32::try_from(self.bytes.len()).map_err(|_| long())?;
        let data = serialise(rows)?;
        let size = i32::try_from(data.len()).map_err(|_| long())?;
        self.bytes.extend(size.to_be_bytes());
        self.bytes.extend(&data);
        self.bytes.extend(crc32fast::hash(&data).to_be_bytes());
        Ok(DeletionVector {
            storage_type: "u".to_owned(),
            path_or_inline_dv: z85::encode(self.id.as_bytes()),
            offset: Some(offset),
            size_in_bytes: size,
            cardinality: i64::try_from(rows.len()).map_err(|_| long())?,
            max_row_index: None,
        })
    }

    /// The file's bytes.
    pub(crate) fn into_bytes(self) -> Bytes {
        self.bytes.into()
    }
}

/// The rows that a vector of a file of the table at `table` deletes.
///
/// # Errors
/// [`Table`](lakeward_connectors::ErrorKind::Table) when the vector is not what the protocol says,
/// or outside of the table's directory; [`Unavailable`](lakeward_connectors::ErrorKind::Unavailable)
/// when its file can't be read.
pub(crate) async fn read(lake: &Lake, table: &str, vector: &DeletionVector) -> Result<Rows> {
    let broken = |why: &str| {
        fault(table, "a deletion vector can't be understood")
            .with("vector", vector.unique_id())
            .with("fault", why)
            .remedy("`lakeward snapshot` reads the table again")
    };
    let size = usize::try_from(vector.size_in_bytes).map_err(|_| broken("a negative size"))?;
    let data = match path(lake, table, vector)? {
        None => {
            let text = &vector.path_or_inline_dv;
            let mut data = z85::decode(text).ok_or_else(|| broken("it is no Base85"))?;
            data.truncate(size);
            data.into()
        }
        Some(path) => {
            // Right behind the version byte, where nothing is said.
            let start = u64::try_from(vector.offset.unwrap_or(1));
            let start = start.map_err(|_| broken("a negative offset"))?;
            let ranges = [0..1, start..start + size as u64 + 8];
            let found = lake.get_ranges(&path, &ranges).await?;
            stored(&found, size).map_err(broken)?
        }
    };
    let rows = parse(&data).map_err(broken)?;
    match u64::try_from(vector.cardinality) == Ok(rows.len()) {
        true => Ok(rows),
        false => Err(broken("it holds another number of rows than the log says")),
    }
}

/// Where the file of a vector is, relative to the lake; `None` for one that has none.
///
/// # Errors
/// [`Table`](lakeward_connectors::ErrorKind::Table) when it is outside of the table's directory, or
/// its name can't be understood.
pub(crate) fn path(lake: &Lake, table: &str, vector: &DeletionVector) -> Result<Option<String>> {
    let text = vector.path_or_inline_dv.as_str();
    let refuse = |what: &str, remedy: &str| {
        Err(fault(table, what).with("vector", vector.unique_id()).remedy(remedy))
    };
    match vector.storage_type.as_str() {
        "i" => Ok(None),
        "u" => {
            let split =
                text.len().checked_sub(UUID_LETTERS).and_then(|at| text.split_at_checked(at));
            let id = split
                .and_then(|(prefix, id)| Some((prefix, Uuid::from_slice(&z85::decode(id)?).ok()?)));
            match id {
                Some(("", id)) => Ok(Some(format!("{table}/{}", name(&id)))),
                Some((prefix, id)) => Ok(Some(format!("{table}/{prefix}/{}", name(&id)))),
                None => refuse(
                    "the name of a deletion vector's file can't be understood",
                    "`lakeward snapshot` reads the table again",
                ),
            }
        }
        "p" => match inside(lake.url(), table, text) {
            Some(path) => Ok(Some(path)),
            None => refuse(
                "a deletion vector lies outside the table's directory",
                "run REORG TABLE … APPLY (PURGE), or write to another table than a shallow clone",
            ),
        },
        _ => refuse(
            "the log has a deletion vector of an unknown storage type",
            "update lakeward, or run REORG TABLE … APPLY (PURGE)",
        ),
    }
}

fn name(id: &Uuid) -> String {
    format!("deletion_vector_{id}.bin")
}

/// An absolute path as one relative to the lake; `None` when it isn't inside the table's directory.
fn inside(lake: &str, table: &str, absolute: &str) -> Option<String> {
    // Hadoop's names of schemes: `s3a` and `s3n` are `s3`, and `file:/x` is `file:///x`.
    let plain = |text: &str| {
        let url = match text.starts_with('/') {
            true => Url::parse(&format!("file://{text}")).ok()?,
            false => Url::parse(text).ok()?,
        };
        let scheme = if url.scheme().starts_with("s3") { "s3" } else { url.scheme() };
        let path = percent_decode(url.path());
        Some(format!("{scheme}://{}{path}", url.host_str().unwrap_or_default()))
    };
    let (lake, absolute) = (plain(lake)?, plain(absolute)?);
    let within = absolute.strip_prefix(lake.trim_end_matches('/'))?.strip_prefix('/')?;
    let name = within.strip_prefix(table)?.strip_prefix('/')?;
    (!name.split('/').any(|part| part == "..")).then(|| within.to_owned())
}

/// The data of a vector in a file, of which the version byte and the vector with its size and
/// checksum were read.
fn stored(found: &[Bytes], size: usize) -> Result<Bytes, &'static str> {
    let [version, whole] = found else { return Err("its file is too short") };
    if version.as_ref() != [VERSION] {
        return Err("its file is of another version");
    }
    if whole.len() != size + 8 {
        return Err("its file is too short");
    }
    let (stated, data) = (whole.slice(..4), whole.slice(4..4 + size));
    if u32::try_from(size).map(u32::to_be_bytes).ok().as_ref().map(|s| &s[..]) != Some(&stated[..])
    {
        return Err("its file says that it has another size");
    }
    match whole[4 + size..] == crc32fast::hash(&data).to_be_bytes() {
        true => Ok(data),
        false => Err("its checksum is wrong"),
    }
}

fn parse(data: &[u8]) -> Result<Rows, &'static str> {
    let Some((magic, mut bitmap)) = data.split_at_checked(4) else { return Err("it is too short") };
    if magic == OLDER_MAGIC.to_be_bytes() {
        return parse_older(bitmap).ok_or("its bitmap can't be read");
    }
    if magic != MAGIC.to_le_bytes() {
        return Err("it begins with another number than it should");
    }
    RoaringTreemap::deserialize_from(&mut bitmap).map_err(|_| "its bitmap can't be read")
}

fn parse_older(data: &[u8]) -> Option<Rows> {
    let number = |data: &[u8]| Some(u32::from_be_bytes(data.try_into().ok()?));
    let (count, mut rest) = data.split_at_checked(4)?;
    let mut bitmaps = Vec::new();
    for high in 0..number(count)? {
        let (size, bitmap) = rest.split_at_checked(4)?;
        let (bitmap, behind) = bitmap.split_at_checked(number(size)? as usize)?;
        bitmaps.push((high, RoaringBitmap::deserialize_from(bitmap).ok()?));
        rest = behind;
    }
    Some(RoaringTreemap::from_bitmaps(bitmaps))
}

fn serialise(rows: &Rows) -> Result<Vec<u8>> {
    let mut data = Vec::with_capacity(4 + rows.serialized_size());
    data.extend(MAGIC.to_le_bytes());
    rows.serialize_into(&mut data)
        .map_err(|error| Error::internal("a deletion vector can't be written").caused_by(error))?;
    Ok(data)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INLINE: &str = "wi5b=000010000siXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L";

    fn vector(storage: &str, text: &str, size: i32, rows: i64) -> DeletionVector {
        DeletionVector {
            storage_type: storage.to_owned(),
            path_or_inline_dv: text.to_owned(),
            offset: None,
            size_in_bytes: size,
            cardinality: rows,
            max_row_index: None,
        }
    }

    #[tokio::test]
    async fn inline_vectors() {
        // The protocol's example is in the older form; what engines write looks like this.
        let portable = "^Bg9^0rr910000000000iXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L";
        let rows = read(&Lake::memory(), "s/t", &vector("i", portable, 44, 6)).await;
        assert_eq!(rows.expect("rows").iter().collect::<Vec<_>>(), [3, 4, 7, 11, 18, 29]);
        let inline = vector("i", INLINE, 40, 6);
        let rows = read(&Lake::memory(), "s/t", &inline).await.expect("rows");
        assert_eq!(rows.iter().collect::<Vec<_>>(), [3, 4, 7, 11, 18, 29]);
        assert_eq!(inline.unique_id(), format!("i{INLINE}"));
    }

    #[test]
    fn the_path_examples_of_the_protocol() {
        let lake = Lake::memory();
        let path = |text: &str| path(&lake, "s/t", &vector("u", text, 1, 1)).expect("a path");
        let name = "deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin";
        assert_eq!(path("ab^-aqEH.-t@S}K{vb[*k^"), Some(format!("s/t/ab/{name}")));
        assert_eq!(path("^-aqEH.-t@S}K{vb[*k^"), Some(format!("s/t/{name}")));
    }

    #[test]
    fn an_absolute_path_is_taken_inside_the_table_only() {
        let of = |absolute| inside("s3://bucket/lake", "s/t", absolute);
        let expected = Some("s/t/d v.bin".to_owned());
        assert_eq!(of("s3://bucket/lake/s/t/d%20v.bin"), expected);
        assert_eq!(of("s3a://bucket/lake/s/t/d%20v.bin"), expected);
        assert_eq!(of("s3://bucket/lake/s/t2/d.bin"), None);
        assert_eq!(of("s3://bucket/lake/s/t/../u/d.bin"), None);
        assert_eq!(of("s3://bucket/lake/s/t/%2e%2e/u/d.bin"), None);
        assert_eq!(of("s3://other/lake/s/t/d.bin"), None);
        assert_eq!(inside("file:///l", "t", "file:/l/t/d.bin"), Some("t/d.bin".to_owned()));
    }

    #[tokio::test]
    async fn a_broken_vector_is_said() {
        let lake = Lake::memory();
        let rows: Rows = (0..10).collect();
        let mut file = VectorFile::new();
        let (name, good) = (file.name(), file.push(&rows).expect("pushed"));
        let bytes = file.into_bytes();
        for at in 0..bytes.len() {
            let mut bytes = bytes.to_vec();
            bytes[at] ^= 0x10;
            lake.put(&format!("s/t/{name}"), bytes.into()).await.expect("put");
            let error = read(&lake, "s/t", &good).await.expect_err("it is broken");
            assert!(error.remedy_text().is_some(), "{}", error.full());
        }
        for wrong in [
            vector("x", INLINE, 40, 6),
            vector("i", INLINE, 40, 5),
            vector("i", INLINE, -1, 6),
            vector("i", "wi5b=", 4, 6),
            vector("i", "#####", 4, 6),
            vector("u", "short", 40, 6),
            vector("p", "s3://elsewhere/d.bin", 40, 6),
        ] {
            let error = read(&lake, "s/t", &wrong).await.expect_err("it is broken");
            assert!(error.remedy_text().is_some(), "{}", error.full());
        }
    }

    fn rows() -> impl Strategy<Value = Rows> {
        let few = prop::collection::vec(0..1_u64 << 34, 0..40);
        (few, 0..200_000_u64, 0..5_000_u64)
            .prop_map(|(few, from, length)| few.into_iter().chain(from..from + length).collect())
    }

    proptest! {
        #[test]
        fn vectors_of_one_file_come_back(vectors in prop::collection::vec(rows(), 1..4)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(async {
                let lake = Lake::memory();
                let mut file = VectorFile::new();
                let pushed: Vec<_> = vectors.iter().map(|rows| file.push(rows)).collect();
                lake.put(&format!("s/t/{}", file.name()), file.into_bytes()).await.expect("put");
                for (pushed, rows) in pushed.into_iter().zip(vectors) {
                    let found = read(&lake, "s/t", &pushed.expect("pushed")).await.expect("read");
                    assert_eq!(found, rows);
                }
            });
        }

        #[test]
        fn no_bytes_are_too_odd(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
            let _ = parse(&[&MAGIC.to_le_bytes()[..], &bytes].concat());
        }
    }
}
