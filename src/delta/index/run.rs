//! A sorted run of the index: entries key → place, ascending by key, in blocks that are checked
//! when they are read.
//!
//! Form, the same in memory and in a file:
//!
//! ```text
//! blocks, each of entries:  shared  rest  bytes  place
//! fences, one a block:      key length, first key, block length, CRC-32 of the block (4 bytes)
//! trailer (32 bytes):       fences' length (8), entries (8), length of the last key (8),
//!                           CRC-32 of all of that but the blocks (4), MAGIC (4)
//! ```
//!
//! `shared` is how many bytes the key has in common with the one before, `rest` how many follow,
//! `place` the difference to the place before (zigzag); all are LEB128 numbers, fixed ones are
//! little-endian. The last key lies between fences and trailer. The first entry of a block is
//! complete. A key may come several times.

use std::ops::Range;

use bytes::Bytes;

use super::Place;
use super::cache::{Blob, Damaged, Output};

/// A block ends at this many bytes, or entries: looking for a key goes through half of them.
const BLOCK: usize = 2048;
const BLOCK_ENTRIES: usize = 128;
/// How many blocks that follow one another are read at once.
const AHEAD: usize = 32;
/// Ends every run; its last digit is the version of the form.
const MAGIC: u32 = 0x4c57_5201;
const TRAILER: usize = 32;

/// A sorted run.
#[derive(Debug)]
pub(super) struct Run {
    blob: Blob,
    /// How many entries there are.
    pub(super) entries: u64,
    fences: Fences,
    last: Box<[u8]>,
}

/// The first key of each block, where the block is, and its checksum.
#[derive(Debug, Default)]
struct Fences {
    keys: Vec<u8>,
    ends: Vec<u32>,
    /// Where each block ends.
    offsets: Vec<u64>,
    sums: Vec<u32>,
}

impl Fences {
    fn len(&self) -> usize {
        self.ends.len()
    }

    fn first(&self, block: usize) -> &[u8] {
        let start = block.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.keys[start..self.ends[block] as usize]
    }

    fn range(&self, block: usize) -> Range<u64> {
        block.checked_sub(1).map_or(0, |before| self.offsets[before])..self.offsets[block]
    }

    /// The block in which entries of `key` begin, if there are any, looked for from block `from`
    /// on. No block before it holds one.
    fn seek(&self, from: usize, key: &[u8]) -> usize {
        let (mut low, mut step) = (from, 1);
        while low + step < self.len() && self.first(low + step) < key {
            low += step;
            step *= 2;
        }
        let mut high = (low + step).min(self.len());
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            match self.first(middle) < key {
                true => low = middle,
                false => high = middle,
            }
        }
        low
    }

    fn push(&mut self, first: &[u8], end: u64, sum: u32) {
        self.keys.extend_from_slice(first);
        self.ends.push(self.keys.len() as u32);
        self.offsets.push(end);
        self.sums.push(sum);
    }

    fn size(&self) -> usize {
        self.keys.capacity() + self.ends.capacity() * (4 + 8 + 4)
    }
}

impl Run {
    /// The run in `blob`.
    pub(super) fn open(blob: Blob) -> Result<Self, Damaged> {
        let end = blob.len();
        let body = end.checked_sub(TRAILER as u64).ok_or(Damaged::Content)?;
        let trailer = blob.read(body..end)?;
        let number = |at: usize| trailer.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        let word = |at: usize| trailer.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
        let (length, entries) = (number(0).ok_or(Damaged::Content)?, number(8));
        let last = number(16).ok_or(Damaged::Content)?;
        let start = body.checked_sub(last).and_then(|at| at.checked_sub(length));
        let start = start.ok_or(Damaged::Content)?;
        let mut bytes = blob.read(start..body)?.to_vec();
        let last = bytes.split_off(length as usize);
        let mut sum = crc32fast::Hasher::new();
        sum.update(&bytes);
        sum.update(&last);
        sum.update(&trailer[..24]);
        if word(24) != Some(sum.finalize()) || word(28) != Some(MAGIC) {
            return Err(Damaged::Content);
        }
        let fences = parse_fences(&bytes, start).ok_or(Damaged::Content)?;
        Ok(Self { blob, entries: entries.ok_or(Damaged::Content)?, fences, last: last.into() })
    }

    /// The memory it takes, in bytes.
    pub(super) fn memory(&self) -> usize {
        self.blob.memory() + self.fences.size()
    }

    /// Its file's name in the cache; `None` when it is in memory.
    pub(super) fn file(&self) -> Option<&str> {
        self.blob.file()
    }

    /// All entries, in order.
    pub(super) fn entries(&self) -> Cursor<'_> {
        Cursor {
            run: self,
            block: 0,
            ahead: Ahead::default(),
            bytes: Bytes::new(),
            at: 0,
            entry: Entry::default(),
        }
    }

    /// Tells `hit` of every place noted under the keys that `key` gives for each of `order`: numbers
    /// in the ascending order of their keys.
    pub(super) fn find<'k>(
        &self,
        order: &[u32],
        key: impl Fn(u32) -> &'k [u8],
        mut hit: impl FnMut(u32, Place),
    ) -> Result<(), Damaged> {
        if self.fences.len() == 0 {
            return Ok(());
        }
        let mut cursor = self.entries();
        let mut started = false;
        for &number in order {
            let wanted = key(number);
            if wanted > &*self.last {
                break;
            }
            if wanted < self.fences.first(0) {
                continue;
            }
            let from = cursor.block.saturating_sub(1);
            let block = self.fences.seek(from, wanted);
            if !started || block > from {
                cursor.jump(block)?;
                if !cursor.advance()? {
                    return Err(Damaged::Content);
                }
                started = true;
            }
            if !cursor.seek(wanted)? {
                return Ok(());
            }
            while cursor.entry.key == wanted {
                hit(number, cursor.entry.place);
                if !cursor.advance()? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn parse_fences(mut bytes: &[u8], end: u64) -> Option<Fences> {
    let (mut fences, mut offset) = (Fences::default(), 0);
    while !bytes.is_empty() {
        let length = usize::try_from(take_number(&mut bytes)?).ok()?;
        let key = bytes.get(..length)?;
        bytes = bytes.get(length..)?;
        offset += take_number(&mut bytes)?;
        let sum = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
        bytes = bytes.get(4..)?;
        fences.push(key, offset, sum);
    }
    (offset == end).then_some(fences)
}

/// One entry.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// Its key.
    pub(super) key: Vec<u8>,
    /// How many bytes of it are said to be those of the entry before.
    shared: usize,
    /// Where the row of that key was written to.
    pub(super) place: Place,
}

impl Entry {
    /// Reads the next entry of a block; `None` when the block is not as it should be.
    #[inline]
    fn read(&mut self, bytes: &mut &[u8]) -> Option<()> {
        let shared = take_number(bytes)? as usize;
        let rest = take_number(bytes)? as usize;
        if shared > self.key.len() {
            return None;
        }
        let (suffix, left) = bytes.split_at_checked(rest)?;
        self.shared = shared;
        self.key.truncate(shared);
        self.key.extend_from_slice(suffix);
        *bytes = left;
        let step = take_number(bytes)?;
        self.place = self.place.wrapping_add(((step >> 1) as i64 ^ -((step & 1) as i64)) as u64);
        Some(())
    }
}

/// Goes through the entries of a run.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    run: &'a Run,
    /// The block after the present one.
    block: usize,
    ahead: Ahead,
    bytes: Bytes,
    at: usize,
    /// The present entry.
    pub(super) entry: Entry,
}

/// Blocks that were read together.
#[derive(Debug, Default)]
struct Ahead {
    bytes: Bytes,
    start: u64,
}

impl Cursor<'_> {
    /// Goes to the next entry; `false` when there is none.
    #[inline]
    pub(super) fn advance(&mut self) -> Result<bool, Damaged> {
        while self.at >= self.bytes.len() {
            if self.block >= self.run.fences.len() {
                return Ok(false);
            }
            self.load(AHEAD)?;
        }
        let mut left = &self.bytes[self.at..];
        self.entry.read(&mut left).ok_or(Damaged::Content)?;
        self.at = self.bytes.len() - left.len();
        Ok(true)
    }

    /// Goes to the first entry, from the present one on, whose key is not less than `wanted`;
    /// `false` when there is none.
    fn seek(&mut self, wanted: &[u8]) -> Result<bool, Damaged> {
        let mut common = in_common(&self.entry.key, wanted);
        while self.entry.key.get(common) < wanted.get(common) {
            if !self.advance()? {
                return Ok(false);
            }
            // An entry that shares more with the one before is less for the same reason.
            let same = self.entry.shared;
            if same <= common {
                common = same + in_common(&self.entry.key[same..], &wanted[same..]);
            }
        }
        Ok(true)
    }

    /// Goes to just before the first entry of a block.
    fn jump(&mut self, block: usize) -> Result<(), Damaged> {
        // Where the walk goes on in the next block it may well go on from there.
        let ahead = if block == self.block && block > 0 { AHEAD } else { 1 };
        self.block = block;
        self.load(ahead)
    }

    /// Reads the next block, and so many together with it.
    fn load(&mut self, ahead: usize) -> Result<(), Damaged> {
        let fences = &self.run.fences;
        let range = fences.range(self.block);
        let held = self.ahead.start..self.ahead.start + self.ahead.bytes.len() as u64;
        if range.start < held.start || range.end > held.end {
            let last = (self.block + ahead).min(fences.len()) - 1;
            let wanted = range.start..fences.range(last).end;
            self.ahead = Ahead { start: wanted.start, bytes: self.run.blob.read(wanted)? };
        }
        let start = (range.start - self.ahead.start) as usize;
        let end = (range.end - self.ahead.start) as usize;
        let bytes = self.ahead.bytes.slice(start..end);
        if crc32fast::hash(&bytes) != fences.sums[self.block] {
            return Err(Damaged::Content);
        }
        self.bytes = bytes;
        self.at = 0;
        self.block += 1;
        self.entry.key.clear();
        self.entry.place = 0;
        Ok(())
    }
}

/// Writes a run.
pub(super) struct Builder {
    output: Output,
    block: Vec<u8>,
    /// How many entries `block` has.
    filled: usize,
    first: Vec<u8>,
    key: Vec<u8>,
    place: Place,
    written: u64,
    entries: u64,
    fences: Fences,
}

impl Builder {
    /// A builder of a run that goes to `output`.
    pub(super) fn new(output: Output) -> Self {
        Self {
            output,
            block: Vec::with_capacity(BLOCK + 256),
            filled: 0,
            first: Vec::new(),
            key: Vec::new(),
            place: 0,
            written: 0,
            entries: 0,
            fences: Fences::default(),
        }
    }

    /// Appends an entry; keys don't descend. Says whether its key is another than that of the entry
    /// before.
    #[inline]
    pub(super) fn push(&mut self, key: &[u8], place: Place) -> Result<bool, Damaged> {
        if self.block.len() >= BLOCK || self.filled >= BLOCK_ENTRIES {
            self.end_block()?;
        }
        let mut shared = in_common(&self.key, key);
        let other = self.entries == 0 || shared < key.len() || shared < self.key.len();
        if self.filled == 0 {
            self.first.clear();
            self.first.extend_from_slice(key);
            shared = 0;
            self.place = 0;
        }
        put_number(shared as u64, &mut self.block);
        put_number((key.len() - shared) as u64, &mut self.block);
        self.block.extend_from_slice(&key[shared..]);
        let step = place.wrapping_sub(self.place) as i64;
        put_number(((step << 1) ^ (step >> 63)) as u64, &mut self.block);
        self.key.truncate(shared);
        self.key.extend_from_slice(&key[shared..]);
        self.place = place;
        self.filled += 1;
        self.entries += 1;
        Ok(other)
    }

    fn end_block(&mut self) -> Result<(), Damaged> {
        self.written += self.block.len() as u64;
        self.fences.push(&self.first, self.written, crc32fast::hash(&self.block));
        self.output.write(&self.block)?;
        self.block.clear();
        self.filled = 0;
        Ok(())
    }

    /// Completes the run; `None` when it has no entry.
    pub(super) fn finish(mut self) -> Result<Option<Run>, Damaged> {
        if self.entries == 0 {
            self.output.abandon();
            return Ok(None);
        }
        self.end_block()?;
        let (mut footer, mut start) = (Vec::new(), 0);
        for block in 0..self.fences.len() {
            let first = self.fences.first(block);
            put_number(first.len() as u64, &mut footer);
            footer.extend_from_slice(first);
            put_number(self.fences.offsets[block] - start, &mut footer);
            footer.extend(self.fences.sums[block].to_le_bytes());
            start = self.fences.offsets[block];
        }
        let length = footer.len() as u64;
        footer.extend_from_slice(&self.key);
        footer.extend(length.to_le_bytes());
        footer.extend(self.entries.to_le_bytes());
        footer.extend((self.key.len() as u64).to_le_bytes());
        footer.extend(crc32fast::hash(&footer).to_le_bytes());
        footer.extend(MAGIC.to_le_bytes());
        self.output.write(&footer)?;
        let blob = self.output.finish()?;
        self.fences.keys.shrink_to_fit();
        Ok(Some(Run { blob, entries: self.entries, fences: self.fences, last: self.key.into() }))
    }
}

/// How many bytes two keys have in common at their beginning.
#[inline]
fn in_common(a: &[u8], b: &[u8]) -> usize {
    let mut at = 0;
    for (a, b) in a.as_chunks().0.iter().zip(b.as_chunks().0) {
        let differ = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if differ != 0 {
            return at + differ.trailing_zeros() as usize / 8;
        }
        at += size_of::<u64>();
    }
    at + a[at..].iter().zip(&b[at..]).take_while(|(a, b)| a == b).count()
}

#[inline]
fn put_number(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[inline]
fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let (mut number, mut shift) = (0, 0);
    loop {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
        shift += 7;
        if shift > 63 {
            return None;
        }
    }
}
