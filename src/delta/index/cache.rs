//! Where runs of the index are kept: the state directory, or memory. What is there is worth time
//! only; whatever is missing or damaged is made again from the lake (P1).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use lakeward_connectors::{Error, Result};

use crate::budget::Budget;
use crate::delta::clock::unique;

/// How many processes can share a state directory.
const CLAIMS: usize = 64;
/// The memory that indexes may take where nobody says otherwise, in bytes.
const LIMIT: usize = 64 << 20;

/// So many new entries are worth saving an index: a start would have to read their keys again.
const WORTH: u64 = 50_000;

/// A place for caches. Cheap to clone; clones share it.
#[derive(Clone)]
pub struct Cache {
    place: Location,
    limit: Budget,
    worth: u64,
}

#[derive(Clone)]
enum Location {
    Memory(Arc<Mutex<BTreeMap<String, Bytes>>>),
    Directory(Arc<Claim>),
}

/// A directory that belongs to this process as long as it holds the lock.
struct Claim {
    path: PathBuf,
    _lock: File,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Cache");
        match &self.place {
            Location::Memory(_) => shown.field("place", &"memory"),
            Location::Directory(claim) => shown.field("place", &claim.path),
        };
        shown.finish_non_exhaustive()
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self::memory()
    }
}

impl Cache {
    /// A cache in memory.
    pub fn memory() -> Self {
        Self { place: Location::Memory(Arc::default()), limit: LIMIT.into(), worth: WORTH }
    }

    /// A cache in a state directory: in the first of its parts, `index-0` and so on, that no other
    /// process has.
    ///
    /// # Errors
    /// [`Config`](lakeward_connectors::ErrorKind::Config) when the directory can't be written to.
    pub fn directory(state: &Path) -> Result<Self> {
        let fault = |error: io::Error| {
            Error::config("the state directory can't be used")
                .with("directory", state.display())
                .caused_by(error)
                .remedy("give lake.state_dir a directory that lakeward may write to")
        };
        for number in 0..CLAIMS {
            let path = state.join(format!("index-{number}"));
            fs::create_dir_all(&path).map_err(fault)?;
            let lock = File::create(path.join("lock")).map_err(fault)?;
            match lock.try_lock() {
                Ok(()) => {
                    let claim = Arc::new(Claim { path, _lock: lock });
                    let place = Location::Directory(claim);
                    return Ok(Self { place, limit: LIMIT.into(), worth: WORTH });
                }
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(fault(error)),
            }
        }
        Err(Error::config("too many processes use the state directory")
            .with("directory", state.display()))
    }

    /// The same cache, with another limit to the memory that all indexes together may take, in
    /// bytes. What is beyond goes to the state directory, if there is one.
    #[must_use]
    pub fn limited(self, limit: impl Into<Budget>) -> Self {
        Self { limit: limit.into(), ..self }
    }

    /// The same cache, where an index is saved after so many new entries.
    #[must_use]
    pub fn saving(self, worth: u64) -> Self {
        Self { worth, ..self }
    }

    /// The limit to the memory that all indexes together may take, in bytes.
    pub fn limit(&self) -> usize {
        self.limit.bytes()
    }

    /// What is kept of the table at `path` of the lake.
    pub(crate) fn table(&self, path: &str) -> Shelf {
        Shelf { cache: self.clone(), path: path.to_owned() }
    }
}

/// What is kept of one table.
#[derive(Debug, Clone)]
pub(crate) struct Shelf {
    cache: Cache,
    path: String,
}

impl Shelf {
    /// The same, of an index that stays in memory.
    pub(super) fn in_memory(&self) -> Self {
        Self { cache: self.cache.clone().limited(usize::MAX), path: self.path.clone() }
    }

    /// How many new entries are worth saving an index.
    pub(super) fn worth(&self) -> u64 {
        self.cache.worth
    }

    /// The memory that one index may take, in bytes.
    pub(super) fn limit(&self) -> usize {
        self.cache.limit()
    }

    /// An object; `None` when there is none.
    pub(super) fn open(&self, name: &str) -> io::Result<Option<Blob>> {
        let content = match &self.cache.place {
            Location::Memory(objects) => {
                let objects = objects.lock().unwrap_or_else(PoisonError::into_inner);
                let found = objects.get(&format!("{}/{name}", self.path)).cloned();
                found.map(Content::Memory)
            }
            Location::Directory(claim) => match File::open(self.file(claim, name)) {
                Ok(file) => Some(Content::File { length: file.metadata()?.len(), file }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            },
        };
        Ok(content.map(|content| Blob { name: Some(name.to_owned()), content }))
    }

    /// A new object of a name of its own.
    pub(super) fn create(&self) -> io::Result<Output> {
        let name = format!("{}.run", unique());
        let sink = match &self.cache.place {
            Location::Memory(_) => Sink::Memory(Vec::new()),
            Location::Directory(claim) => {
                let path = self.file(claim, &name);
                if let Some(directory) = path.parent() {
                    fs::create_dir_all(directory)?;
                }
                let file = File::options().create_new(true).read(true).write(true).open(path)?;
                Sink::File(io::BufWriter::with_capacity(256 << 10, file))
            }
        };
        Ok(Output { sink, kept: Some((self.clone(), name)) })
    }

    /// Puts a small object in the place of the one of that name, at once and durably.
    pub(super) fn replace(&self, name: &str, bytes: Vec<u8>) -> io::Result<()> {
        match &self.cache.place {
            Location::Memory(_) => self.insert(name, bytes.into()),
            Location::Directory(claim) => {
                let (path, draft) =
                    (self.file(claim, name), self.file(claim, &format!("{name}.new")));
                if let Some(directory) = path.parent() {
                    fs::create_dir_all(directory)?;
                }
                let mut file = File::create(&draft)?;
                file.write_all(&bytes)?;
                file.sync_data()?;
                fs::rename(draft, path)?;
            }
        }
        Ok(())
    }

    /// Deletes every object whose name is not one of `names`; as far as it can.
    pub(super) fn retain(&self, names: &BTreeSet<&str>) {
        match &self.cache.place {
            Location::Memory(objects) => {
                let mut objects = objects.lock().unwrap_or_else(PoisonError::into_inner);
                let prefix = format!("{}/", self.path);
                objects.retain(|path, _| {
                    let name = path.strip_prefix(&prefix).filter(|name| !name.contains('/'));
                    name.is_none_or(|name| names.contains(name))
                });
            }
            Location::Directory(claim) => {
                let Ok(entries) = fs::read_dir(claim.path.join(&self.path)) else { return };
                for entry in entries.flatten() {
                    let name = entry.file_name();
                    let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
                    if is_file && !name.to_str().is_some_and(|name| names.contains(name)) {
                        // What stays is tried again the next time.
                        let _ = fs::remove_file(entry.path());
                    }
                }
            }
        }
    }

    /// Deletes everything.
    pub(crate) fn forget(&self) {
        self.retain(&BTreeSet::new());
    }

    /// Changes a byte of the objects in memory whose names end like this.
    #[cfg(test)]
    pub(crate) fn damage(&self, suffix: &str) {
        if let Location::Memory(objects) = &self.cache.place {
            let mut objects = objects.lock().unwrap_or_else(PoisonError::into_inner);
            for (_, bytes) in objects.iter_mut().filter(|(name, _)| name.ends_with(suffix)) {
                let mut damaged = bytes.to_vec();
                let middle = damaged.len() / 2;
                damaged[middle] ^= 1;
                *bytes = damaged.into();
            }
        }
    }

    fn insert(&self, name: &str, bytes: Bytes) {
        if let Location::Memory(objects) = &self.cache.place {
            let mut objects = objects.lock().unwrap_or_else(PoisonError::into_inner);
            objects.insert(format!("{}/{name}", self.path), bytes);
        }
    }

    fn file(&self, claim: &Claim, name: &str) -> PathBuf {
        claim.path.join(&self.path).join(name)
    }
}

/// Why something kept is of no use.
#[derive(Debug)]
pub(crate) enum Damaged {
    /// It can't be read or written.
    Io(io::Error),
    /// It is not what was written.
    Content,
}

impl From<io::Error> for Damaged {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "the state directory can't be read or written: {error}"),
            Self::Content => f.write_str("a file of the state directory is damaged"),
        }
    }
}

impl std::error::Error for Damaged {}

/// An object, opened.
#[derive(Debug)]
pub(super) struct Blob {
    /// Its name; `None` when only this process's memory has it.
    name: Option<String>,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Memory(Bytes),
    File { file: File, length: u64 },
}

impl Blob {
    pub(super) fn len(&self) -> u64 {
        match &self.content {
            Content::Memory(bytes) => bytes.len() as u64,
            Content::File { length, .. } => *length,
        }
    }

    /// Some of its bytes.
    pub(super) fn read(&self, range: Range<u64>) -> Result<Bytes, Damaged> {
        match &self.content {
            Content::Memory(bytes) => {
                let range = range.start as usize..range.end as usize;
                match range.end <= bytes.len() && range.start <= range.end {
                    true => Ok(bytes.slice(range)),
                    false => Err(Damaged::Content),
                }
            }
            Content::File { file, .. } => {
                let length = range.end.checked_sub(range.start).ok_or(Damaged::Content)?;
                let mut bytes = vec![0; length as usize];
                file.read_exact_at(&mut bytes, range.start)?;
                Ok(bytes.into())
            }
        }
    }

    /// The memory it takes, in bytes.
    pub(super) fn memory(&self) -> usize {
        match &self.content {
            Content::Memory(bytes) if self.name.is_none() => bytes.len(),
            _ => 0,
        }
    }

    /// Its name, when it is more than this process's memory.
    pub(super) fn file(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// All of it.
    pub(super) fn bytes(&self) -> Result<Bytes, Damaged> {
        self.read(0..self.len())
    }
}

/// An object being written.
pub(super) struct Output {
    sink: Sink,
    /// Where it is kept; `None` when only this process's memory has it.
    kept: Option<(Shelf, String)>,
}

enum Sink {
    Memory(Vec<u8>),
    File(io::BufWriter<File>),
}

impl Output {
    /// An object that only this process's memory has.
    pub(super) fn memory() -> Self {
        Self { sink: Sink::Memory(Vec::new()), kept: None }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.sink {
            Sink::Memory(out) => out.extend_from_slice(bytes),
            Sink::File(file) => file.write_all(bytes)?,
        }
        Ok(())
    }

    /// Completes it, durably where it is a file.
    pub(super) fn finish(self) -> io::Result<Blob> {
        let content = match self.sink {
            Sink::Memory(mut bytes) => {
                bytes.shrink_to_fit();
                Content::Memory(bytes.into())
            }
            Sink::File(file) => {
                let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
                file.sync_data()?;
                Content::File { length: file.metadata()?.len(), file }
            }
        };
        let name = self.kept.map(|(shelf, name)| {
            if let Content::Memory(bytes) = &content {
                shelf.insert(&name, bytes.clone());
            }
            name
        });
        Ok(Blob { name, content })
    }

    /// Leaves nothing behind.
    pub(super) fn abandon(self) {
        if let (Sink::File(_), Some((shelf, name))) = (self.sink, self.kept)
            && let Location::Directory(claim) = &shelf.cache.place
        {
            // Whatever stays is deleted with the next save.
            let _ = fs::remove_file(shelf.file(claim, &name));
        }
    }
}
