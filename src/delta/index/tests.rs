//! The index against a map.

use std::collections::{BTreeMap, BTreeSet};

use lakeward_connectors::key::Keys;
use proptest::prelude::*;

use super::cache::Cache;
use super::saved::SavedFile;
use super::{Index, Place, Segment};

fn keys<'a>(all: impl IntoIterator<Item = &'a [u8]>) -> Keys {
    let mut keys = Keys::default();
    for key in all {
        keys.push_bytes(key);
    }
    keys
}

#[derive(Debug, Clone)]
enum Step {
    /// Rows of these keys are written.
    Push(Vec<Vec<u8>>),
    /// What is noted under these keys goes.
    Kill(Vec<Vec<u8>>),
    Find(Vec<Vec<u8>>),
    Settle,
    Join,
    Spill,
    /// Save, and open again.
    Reopen,
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => (0_u64..300).prop_map(|number| number.to_be_bytes().to_vec()),
        1 => prop::collection::vec(0_u8..3, 0..12),
        1 => (0_usize..4, 1500_usize..3000).prop_map(|(first, length)| {
            let mut key = vec![7; length];
            key[first] = 8;
            key
        }),
    ]
}

fn some() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(key(), 0..80)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => some().prop_map(Step::Push),
        2 => some().prop_map(Step::Kill),
        4 => some().prop_map(Step::Find),
        2 => Just(Step::Settle),
        1 => Just(Step::Join),
        1 => Just(Step::Spill),
        1 => Just(Step::Reopen),
    ]
}

fn live(unique: bool, cache: Cache, steps: Vec<Step>) {
    let shelf = || cache.table("s/t");
    let mut index = Index::new(shelf(), unique);
    let mut model: BTreeMap<Vec<u8>, Vec<Place>> = BTreeMap::new();
    let mut alive: BTreeSet<Place> = BTreeSet::new();
    for step in steps {
        match step {
            Step::Push(all) => {
                for key in all {
                    let (place, places) = (index.next(), model.entry(key.clone()).or_default());
                    if unique {
                        alive.retain(|place| !places.contains(place));
                        places.clear();
                    }
                    places.push(place);
                    alive.insert(place);
                    index.push(&key).expect("noted");
                    assert_eq!(index.next(), place + 1);
                }
            }
            Step::Kill(all) => {
                for key in all {
                    let places = model.remove(&key).unwrap_or_default();
                    alive.retain(|place| !places.contains(place));
                }
            }
            Step::Find(all) => {
                let all: BTreeSet<_> = all.into_iter().collect();
                let asked = keys(all.iter().rev().map(Vec::as_slice));
                let found = index.find(&asked, |place| alive.contains(&place)).expect("found");
                for (number, key) in (0..).zip(all.iter().rev()) {
                    let expected = model.get(key).map_or(&[][..], Vec::as_slice);
                    assert_eq!(found.of(number), expected, "key {key:?}");
                }
            }
            Step::Settle => drop(index.settle(|place| alive.contains(&place)).expect("settled")),
            Step::Join => assert!(index.join(|place| alive.contains(&place)).expect("joined")),
            Step::Spill => index.spill().expect("spilled"),
            Step::Reopen => {
                let segments = vec![Segment { first: 0, place: 0, rows: index.next() }];
                let file = SavedFile { rows: index.next(), deleted: None, segments };
                let files = BTreeMap::from([("file".to_owned(), file)]);
                index.save("table", files.clone()).expect("saved");
                let next = index.next();
                let (opened, known) = Index::open(shelf(), unique, "table");
                assert_eq!((opened.next(), known), (next, files));
                index = opened;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(120) })]

    #[test]
    fn the_index_is_a_map(
        unique in any::<bool>(),
        small in any::<bool>(),
        steps in prop::collection::vec(step(), 0..40),
    ) {
        let limit = if small { 4000 } else { 1 << 20 };
        live(unique, Cache::memory().limited(limit), steps);
    }
}

#[test]
fn it_is_kept_in_a_directory() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut steps = Vec::new();
    for turn in 0..20_u64 {
        let all = |step: u64| (0..500).map(|n| (n * step + turn).to_be_bytes().to_vec()).collect();
        steps.extend([Step::Push(all(7)), Step::Kill(all(5)), Step::Find(all(3)), Step::Settle]);
        if turn % 3 == 0 {
            steps.push(Step::Reopen);
        }
    }
    let cache = Cache::directory(directory.path()).expect("a cache");
    live(true, cache.clone().limited(2000), steps);
    let files = std::fs::read_dir(directory.path().join("index-0/s/t")).expect("files").count();
    assert!(files < 40, "{files} files are left");
    let second = Cache::directory(directory.path()).expect("another");
    assert!(directory.path().join("index-1").exists(), "one process has the first part");
    drop((cache, second));
}

/// Nothing of what is kept can be damaged without being noticed.
#[test]
fn damage_is_noticed() {
    let directory = tempfile::tempdir().expect("a directory");
    let cache = Cache::directory(directory.path()).expect("a cache");
    let mut index = Index::new(cache.table("t"), true);
    for number in 0..2000_u64 {
        index.push(&number.to_be_bytes()).expect("noted");
    }
    index.save("table", BTreeMap::new()).expect("saved");
    drop(index);
    let all = keys((0..2000_u64).map(u64::to_be_bytes).collect::<Vec<_>>().iter().map(|k| &k[..]));
    let intact = |cache: &Cache| {
        let (mut index, _) = Index::open(cache.table("t"), true, "table");
        index.next() == 2000
            && index.find(&all, |_| true).is_ok_and(|found| {
                (0..2000).all(|number| found.of(number) == [Place::from(number)])
            })
    };
    assert!(intact(&cache));
    let (other, _) = Index::open(cache.table("t"), true, "another table");
    assert_eq!(other.next(), 0);
    let files = std::fs::read_dir(directory.path().join("index-0/t")).expect("files");
    for file in files.map(|file| file.expect("a file").path()) {
        let bytes = std::fs::read(&file).expect("read");
        for at in (0..bytes.len()).step_by(bytes.len() / 200 + 1).chain([bytes.len() - 1]) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            std::fs::write(&file, &damaged).expect("written");
            assert!(!intact(&cache), "byte {at} of {}", file.display());
        }
        std::fs::write(&file, &bytes[..bytes.len() / 2]).expect("written");
        assert!(!intact(&cache), "half of {}", file.display());
        std::fs::write(&file, &bytes).expect("written");
    }
    assert!(intact(&cache));
}
