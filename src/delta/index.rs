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
    /// Any other key.
    Large(FxHashMap<Box<[u8]>, Loc>),
    /// The whole row is its identity, and equal rows are counted.
    Rows(FxHashMap<Box<[u8]>, Vec<Loc>>),
}

impl Index {
    /// An empty index of a table of `schema`.
    pub(crate) fn new(schema: &TableSchema) -> Self {
        match &schema.identity {
            Identity::FullRow => Self::Rows(FxHashMap::default()),
            Identity::Key(columns) => match columns.as_slice() {
                [column] if is_small(schema.columns.get(*column).map(|c| &c.kind)) => {
                    Self::Small(Shards::default())
                }
                _ => Self::Large(FxHashMap::default()),
            },
        }
    }

    /// The places noted under `key`: at most one, unless the whole row is the identity.
    pub(crate) fn get(&self, key: &[u8]) -> &[Loc] {
        let found = match self {
            Self::Small(shards) => shards.get(small(key)),
            Self::Large(map) => map.get(key),
            Self::Rows(map) => return map.get(key).map_or(&[], Vec::as_slice),
        };
        found.map_or(&[], std::slice::from_ref)
    }

    /// Notes that a row of `key` is at `loc`. Where a key has one row, what was noted is replaced.
    pub(crate) fn put(&mut self, key: &[u8], loc: Loc) {
        match self {
            Self::Small(shards) => shards.put(small(key), loc),
            Self::Large(map) => match map.get_mut(key) {
                Some(found) => *found = loc,
                None => drop(map.insert(key.into(), loc)),
            },
            Self::Rows(map) => match map.get_mut(key) {
                Some(found) => found.push(loc),
                None => drop(map.insert(key.into(), vec![loc])),
            },
        }
    }

    /// Forgets that a row of `key` is at `loc`.
    pub(crate) fn remove(&mut self, key: &[u8], loc: Loc) {
        match self {
            Self::Small(shards) => shards.remove(small(key), loc),
            Self::Large(map) => {
                if map.get(key) == Some(&loc) {
                    map.remove(key);
                }
            }
            Self::Rows(map) => {
                if let Some(found) = map.get_mut(key) {
                    found.retain(|other| *other != loc);
                    if found.is_empty() {
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
            Self::Large(map) => {
                let keys: usize = map.keys().map(|key| key.len() + size_of::<usize>()).sum();
                keys + map.capacity() * (size_of::<(Box<[u8]>, Loc)>() + CONTROL)
            }
            Self::Rows(map) => {
                let keys: usize = map.keys().map(|key| key.len() + 2 * size_of::<usize>()).sum();
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

/// A hash table in parts, so that growing never holds the whole of it twice.
#[derive(Debug)]
pub(crate) struct Shards(Vec<HashTable<(i64, Loc)>>);

const SHARDS: usize = 64;

impl Default for Shards {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| HashTable::new()).collect())
    }
}

impl Shards {
    fn get(&self, key: i64) -> Option<&Loc> {
        let hash = hash(key);
        self.0[shard(hash)].find(hash, |entry| entry.0 == key).map(|(_, loc)| loc)
    }

    fn put(&mut self, key: i64, loc: Loc) {
        let code = hash(key);
        let table = &mut self.0[shard(code)];
        match table.entry(code, |entry| entry.0 == key, |entry| hash(entry.0)) {
            Entry::Occupied(mut entry) => entry.get_mut().1 = loc,
            Entry::Vacant(entry) => drop(entry.insert((key, loc))),
        }
    }

    fn remove(&mut self, key: i64, loc: Loc) {
        let hash = hash(key);
        let found = self.0[shard(hash)].find_entry(hash, |entry| *entry == (key, loc));
        if let Ok(entry) = found {
            entry.remove();
        }
    }

    fn size(&self) -> usize {
        self.0.iter().map(HashTable::allocation_size).sum()
    }
}

fn hash(key: i64) -> u64 {
    let mut hasher = FxBuildHasher.build_hasher();
    hasher.write_i64(key);
    hasher.finish()
}

/// Bits that the table itself uses neither for the bucket nor for the tag.
fn shard(hash: u64) -> usize {
    (hash >> 45) as usize % SHARDS
}

/// A key as 64 bits, where taking two keys for one does no harm.
pub(crate) fn fingerprint(key: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(key);
    hasher.finish()
}
