//! Where each row of a table is: its key → the place it was written to.
//!
//! A place is a *slot* and a row of it. A slot is a run of rows that were written together and stay
//! in order; [`View`](super::view::View) knows which file a slot's rows are in now and how many of
//! them are left. So rewriting a file moves rows without touching the index.

use std::hash::{BuildHasher, Hasher};

use hashbrown::hash_table::{Entry, HashTable};
use lakeward_connectors::schema::{Identity, TableSchema, Type};
use rustc_hash::{FxBuildHasher, FxHashMap, FxHasher};

/// Where a row was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Loc {
    /// The slot.
    pub(crate) slot: u32,
    /// The row of the slot, counted when it was written.
    pub(crate) row: u32,
}

/// Key → places.
///
/// Entries whose place is no longer in any file are left where they are until their key comes
/// again: whoever looks a place up asks the view whether it is still there.
#[derive(Debug)]
pub(crate) enum Index {
    /// The key is one integer, date or time.
    Small(Shards),
    /// Any other key; and the bytes of all keys.
    Large(FxHashMap<Box<[u8]>, Loc>, usize),
    /// The whole row is its identity, and equal rows are counted; and the bytes of all keys.
    Rows(FxHashMap<Box<[u8]>, Vec<Loc>>, usize),
}

impl Index {
    /// An empty index of a table of `schema`.
    pub(crate) fn new(schema: &TableSchema) -> Self {
        match &schema.identity {
            Identity::FullRow => Self::Rows(FxHashMap::default(), 0),
            Identity::Key(columns) => match columns.as_slice() {
                [column] if is_small(schema.columns.get(*column).map(|c| &c.kind)) => {
                    Self::Small(Shards::default())
                }
                _ => Self::Large(FxHashMap::default(), 0),
            },
        }
    }

    /// The places noted under `key`: at most one, unless the whole row is the identity.
    pub(crate) fn get(&self, key: &[u8]) -> &[Loc] {
        let found = match self {
            Self::Small(shards) => shards.get(small(key)),
            Self::Large(map, _) => map.get(key),
            Self::Rows(map, _) => return map.get(key).map_or(&[], Vec::as_slice),
        };
        found.map_or(&[], std::slice::from_ref)
    }

    /// Notes that a row of `key` is at `loc`. Where a key has one row, what was noted is replaced.
    pub(crate) fn put(&mut self, key: &[u8], loc: Loc) {
        match self {
            Self::Small(shards) => shards.put(small(key), loc),
            Self::Large(map, bytes) => match map.get_mut(key) {
                Some(found) => *found = loc,
                None => {
                    *bytes += key.len();
                    map.insert(key.into(), loc);
                }
            },
            Self::Rows(map, bytes) => match map.get_mut(key) {
                Some(found) => found.push(loc),
                None => {
                    *bytes += key.len() + size_of::<Loc>();
                    map.insert(key.into(), vec![loc]);
                }
            },
        }
    }

    /// Forgets that a row of `key` is at `loc`.
    pub(crate) fn remove(&mut self, key: &[u8], loc: Loc) {
        match self {
            Self::Small(shards) => shards.remove(small(key), loc),
            Self::Large(map, bytes) => {
                if map.get(key) == Some(&loc) {
                    *bytes -= key.len();
                    map.remove(key);
                }
            }
            Self::Rows(map, bytes) => {
                if let Some(found) = map.get_mut(key) {
                    found.retain(|other| *other != loc);
                    if found.is_empty() {
                        *bytes -= key.len() + size_of::<Loc>();
                        map.remove(key);
                    }
                }
            }
        }
    }

    /// About how much memory the index takes, in bytes.
    pub(crate) fn size(&self) -> usize {
        const CONTROL: usize = 1;
        match self {
            Self::Small(shards) => shards.size(),
            Self::Large(map, bytes) => {
                let keys = bytes + map.len() * size_of::<usize>();
                keys + map.capacity() * (size_of::<(Box<[u8]>, Loc)>() + CONTROL)
            }
            Self::Rows(map, bytes) => {
                let keys = bytes + 2 * map.len() * size_of::<usize>();
                keys + map.capacity() * (size_of::<(Box<[u8]>, Vec<Loc>)>() + CONTROL)
            }
        }
    }
}

fn is_small(kind: Option<&Type>) -> bool {
    matches!(
        kind,
        Some(
            Type::Int16
                | Type::Int32
                | Type::Int64
                | Type::Date
                | Type::Timestamp
                | Type::LocalTimestamp
        )
    )
}

/// The key of a small index; keys of these types are eight bytes.
fn small(key: &[u8]) -> i64 {
    key.try_into().map_or(0, i64::from_be_bytes)
}

/// A hash table in parts, so that growing never holds the whole of it twice. The parts are of
/// different sizes, from one to two, so that they don't all grow at the same time.
#[derive(Debug)]
pub(crate) struct Shards {
    tables: Vec<HashTable<(i64, Loc)>>,
    /// For some bits of the hash, the part.
    parts: Vec<u8>,
}

const SHARDS: usize = 64;
const PARTS: usize = 4096;

impl Default for Shards {
    fn default() -> Self {
        // Part number i is as large as 2^(i / SHARDS): up to it lie 2^(i / SHARDS) - 1 of all.
        let part = |at: usize| (SHARDS as f64 * (1.0 + at as f64 / PARTS as f64).log2()) as u8;
        Self {
            tables: (0..SHARDS).map(|_| HashTable::new()).collect(),
            parts: (0..PARTS).map(part).collect(),
        }
    }
}

impl Shards {
    fn get(&self, key: i64) -> Option<&Loc> {
        let hash = hash(key);
        self.tables[self.part(hash)].find(hash, |entry| entry.0 == key).map(|(_, loc)| loc)
    }

    fn put(&mut self, key: i64, loc: Loc) {
        let code = hash(key);
        let part = self.part(code);
        match self.tables[part].entry(code, |entry| entry.0 == key, |entry| hash(entry.0)) {
            Entry::Occupied(mut entry) => entry.get_mut().1 = loc,
            Entry::Vacant(entry) => drop(entry.insert((key, loc))),
        }
    }

    fn remove(&mut self, key: i64, loc: Loc) {
        let (hash, at) = (hash(key), self.part(hash(key)));
        if let Ok(entry) = self.tables[at].find_entry(hash, |entry| *entry == (key, loc)) {
            entry.remove();
        }
    }

    fn size(&self) -> usize {
        self.tables.iter().map(HashTable::allocation_size).sum()
    }

    /// By bits that the table itself uses neither for the bucket nor for the tag.
    fn part(&self, hash: u64) -> usize {
        usize::from(self.parts[(hash >> 40) as usize % PARTS])
    }
}

fn hash(key: i64) -> u64 {
    let mut hasher = FxBuildHasher.build_hasher();
    hasher.write_i64(key);
    hasher.finish()
}

/// A key as 64 bits, where taking two keys for one does no harm.
pub(crate) fn fingerprint(key: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(key);
    hasher.finish()
}
