//! The keys seen so far, each with a number: the hot path of collapsing.

use std::hash::{BuildHasher, Hasher};

use hashbrown::{DefaultHashBuilder, HashTable};
use lakeward_connectors::batch::Batch;
use lakeward_connectors::key::Keys;

/// Keys in the order in which they were first seen.
///
/// Keys are data of the source's users, so the hash is seeded by chance: nobody can choose keys
/// that all collide. Nothing that comes out depends on the hash.
#[derive(Default)]
pub(super) struct Seen {
    keys: Keys,
    /// Keys of eight bytes (one integer, date, time or float), which compare without a look
    /// into `keys`.
    words: HashTable<(u64, u32)>,
    /// All others.
    others: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Seen {
    /// With room for the keys of `batches`, as if none came twice: to grow costs more than the room.
    pub(super) fn with_room(batches: &[Batch]) -> Self {
        let mut seen = Self::default();
        let keys = batches.iter().map(|batch| batch.keys.len()).sum();
        let bytes: usize = batches.iter().map(|batch| batch.keys.bytes()).sum();
        seen.keys.reserve(keys, bytes);
        match bytes == keys * size_of::<u64>() {
            true => seen.words.reserve(keys, |(word, _)| hash_word(&seen.hasher, *word)),
            // There is nothing in it yet to be hashed.
            false => seen.others.reserve(keys, |_| 0),
        }
        seen
    }

    /// The number of `key`, and whether it was seen for the first time.
    #[inline]
    pub(super) fn number(&mut self, key: &[u8]) -> (u32, bool) {
        match <[u8; 8]>::try_from(key) {
            Ok(word) => self.number_of_word(u64::from_ne_bytes(word), key),
            Err(_) => self.number_of_bytes(key),
        }
    }

    #[inline]
    fn number_of_word(&mut self, word: u64, key: &[u8]) -> (u32, bool) {
        let Self { keys, words, hasher, .. } = self;
        let hash = hash_word(hasher, word);
        if let Some((_, number)) = words.find(hash, |(other, _)| *other == word) {
            return (*number, false);
        }
        let number = keys.push_bytes(key);
        words.insert_unique(hash, (word, number), |(word, _)| hash_word(hasher, *word));
        (number, true)
    }

    fn number_of_bytes(&mut self, key: &[u8]) -> (u32, bool) {
        let Self { keys, others, hasher, .. } = self;
        let hash = hash_bytes(hasher, key);
        if let Some(number) = others.find(hash, |&number| keys.get(number) == key) {
            return (*number, false);
        }
        let number = keys.push_bytes(key);
        others.insert_unique(hash, number, |&number| hash_bytes(hasher, keys.get(number)));
        (number, true)
    }

    /// All keys by number.
    pub(super) fn into_keys(self) -> Keys {
        self.keys
    }
}

#[inline]
fn hash_word(hasher: &DefaultHashBuilder, word: u64) -> u64 {
    let mut hasher = hasher.build_hasher();
    hasher.write_u64(word);
    hasher.finish()
}

fn hash_bytes(hasher: &DefaultHashBuilder, key: &[u8]) -> u64 {
    let mut hasher = hasher.build_hasher();
    hasher.write(key);
    hasher.finish()
}
