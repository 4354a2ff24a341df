//! Each way a row can travel through a run, and chance runs against a model with full rows.

use std::collections::BTreeMap;

use lakeward_connectors::batch::Builder;
use lakeward_connectors::change::{Op, Value};
use lakeward_connectors::schema::{Column, Compare, TableId, Type};
use proptest::prelude::*;

use super::*;

const U: Value<'static> = Value::Unchanged;

fn schema(key: Type, identity: Identity) -> Arc<TableSchema> {
    let column = |id, name: &str, kind| Column {
        id,
        name: name.to_owned(),
        kind,
        source_type: String::new(),
        missing: None,
        compare: Compare::EXACT,
    };
    Arc::new(TableSchema {
        id: TableId::new("public", "t"),
        columns: vec![
            column(1, "id", key),
            column(2, "note", Type::Int64),
            column(3, "big", Type::Int64),
        ],
        identity,
        storage: String::new(),
        lasting_ids: false,
    })
}

fn by_id() -> Arc<TableSchema> {
    schema(Type::Int64, Identity::Key(vec![0]))
}

fn row(id: i64, note: i64, big: Value<'static>) -> [Value<'static>; 3] {
    [Value::Int(id), Value::Int(note), big]
}

/// One change: operation, old key, row.
type Step = (Op, Option<i64>, [Value<'static>; 3]);

fn insert(id: i64, note: i64, big: i64) -> Step {
    (Op::Insert, None, row(id, note, Value::Int(big)))
}

fn update(id: i64, note: i64, big: Value<'static>) -> Step {
    (Op::Update, None, row(id, note, big))
}

fn moved(old: i64, id: i64, big: Value<'static>) -> Step {
    (Op::Update, Some(old), row(id, 0, big))
}

fn delete(id: i64) -> Step {
    (Op::Delete, None, row(id, 0, Value::Null))
}

fn batch(schema: &Arc<TableSchema>, steps: &[Step]) -> Batch {
    let mut builder = Builder::new(schema.clone());
    for (op, old, row) in steps {
        let old = match old {
            Some(old) => Some([Value::Int(*old), Value::Null, Value::Null]),
            None if *op == Op::Delete => Some(row.clone()),
            None => None,
        };
        let new = (*op != Op::Delete).then_some(row.as_slice());
        builder.push(*op, old.as_ref().map(|old| old.as_slice()), new).unwrap();
    }
    builder.finish()
}

fn run(steps: &[Step]) -> Collapsed {
    collapse(vec![batch(&by_id(), steps)]).unwrap()
}

fn id(keys: &Keys, key: u32) -> i64 {
    i64::from_be_bytes(keys.get(key).try_into().unwrap())
}

fn removed(collapsed: &Collapsed) -> Vec<i64> {
    assert!(collapsed.removals.iter().all(|removal| removal.rows == 1));
    collapsed.removals.iter().map(|removal| id(&collapsed.keys, removal.key)).collect()
}

/// The rows that come: id, row in its batch, and where `big` is when it was left out.
fn come(collapsed: &Collapsed) -> Vec<(i64, u32, Option<From>)> {
    let rows = collapsed.rows.iter().map(|row| {
        let big = row.carried.iter().find(|(column, _)| *column == 2).map(|(_, from)| *from);
        (id(&collapsed.keys, row.key), row.from.row, big)
    });
    rows.collect()
}

fn in_row(row: u32) -> Option<From> {
    Some(From::Run(Cell { batch: 0, row }))
}

/// The lake's row under the key that `key` is.
fn in_lake(collapsed: &Collapsed, from: Option<From>) -> i64 {
    match from {
        Some(From::Lake(key)) => id(&collapsed.keys, key),
        other => panic!("{other:?} is not in the lake"),
    }
}

#[test]
fn the_last_write_wins() {
    let collapsed =
        run(&[insert(1, 1, 1), insert(2, 2, 2), update(1, 3, Value::Int(3)), delete(2)]);
    assert_eq!(removed(&collapsed), [1, 2]);
    assert_eq!(come(&collapsed), [(1, 2, None)]);
}

#[test]
fn an_update_carries_the_lakes_value() {
    let collapsed = run(&[update(1, 5, U)]);
    let rows = come(&collapsed);
    assert_eq!((rows[0].0, in_lake(&collapsed, rows[0].2)), (1, 1));
}

#[test]
fn a_chain_of_updates_carries_along_all_of_them() {
    let collapsed = run(&[update(1, 1, Value::Int(7)), update(1, 2, U), update(1, 3, U)]);
    assert_eq!(come(&collapsed), [(1, 2, in_row(0))]);
}

#[test]
fn each_column_is_carried_from_where_it_was_last_sent() {
    let steps = [
        update(1, 1, U),
        (Op::Update, None, [Value::Int(1), U, Value::Int(9)]),
        (Op::Update, None, [Value::Int(1), U, U]),
    ];
    let carried = run(&steps).rows[0].carried.clone();
    let cell = |row| From::Run(Cell { batch: 0, row });
    assert_eq!(carried, [(1, cell(0)), (2, cell(1))]);
}

#[test]
fn a_moved_row_carries_the_lakes_value_of_its_old_key() {
    let collapsed = run(&[moved(1, 10, U)]);
    assert_eq!(removed(&collapsed), [1, 10]);
    let rows = come(&collapsed);
    assert_eq!((rows[0].0, in_lake(&collapsed, rows[0].2)), (10, 1));
}

#[test]
fn a_swap_through_a_temporary_key_swaps_the_values() {
    let collapsed = run(&[moved(1, -1, U), moved(2, 1, U), moved(-1, 2, U)]);
    let mut removed = removed(&collapsed);
    removed.sort_unstable();
    assert_eq!(removed, [-1, 1, 2]);
    let rows = come(&collapsed);
    let find = |id| rows.iter().find(|row| row.0 == id).unwrap().2;
    assert_eq!(in_lake(&collapsed, find(1)), 2);
    assert_eq!(in_lake(&collapsed, find(2)), 1);
    assert_eq!(rows.len(), 2);
}

#[test]
fn a_row_inserted_again_carries_its_new_value() {
    let collapsed = run(&[delete(1), insert(1, 1, 1), update(1, 2, U)]);
    assert_eq!(come(&collapsed), [(1, 1, in_row(0))]);
}

#[test]
fn a_value_of_a_row_the_run_deleted_is_nowhere() {
    let collapsed = run(&[delete(1), update(1, 2, U), delete(3), moved(3, 4, U)]);
    let rows = come(&collapsed);
    assert_eq!(rows, [(1, 0, Some(From::Nowhere)), (4, 1, Some(From::Nowhere))]);
}

fn patched(id: i64, patch: &'static str) -> Step {
    (Op::Update, None, row(id, 0, Value::Patch(patch.into())))
}

/// Where the value of `big` of each row that comes is, and the rows that hold patches of it.
fn patches(steps: &[Step]) -> Vec<(Option<From>, Vec<u32>)> {
    let mut texts = (*by_id()).clone();
    texts.columns[2].kind = Type::Text;
    let collapsed = collapse(vec![batch(&Arc::new(texts), steps)]).unwrap();
    let rows = collapsed.rows.iter().map(|row| {
        assert!(row.patches.iter().all(|(column, _)| *column == 2));
        let from = row.carried.iter().find(|(column, _)| *column == 2).map(|(_, from)| *from);
        (from, row.patches.iter().map(|(_, cell)| cell.row).collect())
    });
    rows.collect()
}

#[test]
fn patches_follow_the_value_they_are_of_in_order() {
    let whole = (Op::Update, None, row(1, 0, Value::Text("[]")));
    let steps = [patched(1, "lost"), whole, patched(1, "a"), update(1, 1, U), patched(1, "b")];
    assert_eq!(patches(&steps), [(in_row(1), vec![2, 4])]);
    let steps = [patched(1, "a"), patched(1, "b"), update(1, 1, U)];
    assert_eq!(patches(&steps), [(Some(From::Lake(0)), vec![0, 1])]);
}

#[test]
fn patches_follow_the_row_to_another_key() {
    let away = (Op::Update, Some(1), row(2, 0, Value::Patch("b".into())));
    assert_eq!(patches(&[patched(1, "a"), away]), [(Some(From::Lake(0)), vec![0, 1])]);
    assert_eq!(patches(&[delete(1), patched(1, "a")]), [(Some(From::Nowhere), vec![0])]);
}

#[test]
fn a_null_is_a_value() {
    let collapsed = run(&[update(1, 1, Value::Null), update(1, 2, U)]);
    assert_eq!(come(&collapsed), [(1, 1, in_row(0))]);
}

#[test]
fn a_row_moved_onto_its_own_key_stays() {
    let mut batch = batch(&by_id(), &[moved(1, 2, U)]);
    batch.changes[0].old_key = Some(batch.changes[0].key);
    let collapsed = collapse(vec![batch]).unwrap();
    assert_eq!(removed(&collapsed), [2]);
    let rows = come(&collapsed);
    assert_eq!((rows.len(), in_lake(&collapsed, rows[0].2)), (1, 2));
}

#[test]
fn what_the_caller_promised_is_checked() {
    assert!(collapse(Vec::new()).is_err());
    let text = schema(Type::Text, Identity::Key(vec![0]));
    assert!(collapse(vec![batch(&by_id(), &[]), batch(&text, &[])]).is_err());
    let mut rowless = batch(&by_id(), &[insert(1, 1, 1)]);
    rowless.changes[0].row = None;
    assert!(collapse(vec![rowless]).is_err());
}

#[test]
fn equal_rows_are_counted() {
    let full = schema(Type::Int64, Identity::FullRow);
    let gone = |id, note, big| (Op::Delete, None, row(id, note, Value::Int(big)));
    let first = batch(&full, &[gone(1, 1, 1), insert(1, 1, 1), insert(1, 1, 1), gone(2, 2, 2)]);
    let second = batch(&full, &[gone(1, 1, 1), gone(2, 2, 2), insert(3, 3, 3)]);
    let collapsed = collapse(vec![first, second]).unwrap();
    let counts: Vec<u32> = collapsed.removals.iter().map(|removal| removal.rows).collect();
    assert_eq!(counts, [1, 2]);
    let cells: Vec<Cell> = collapsed.rows.iter().map(|row| row.from).collect();
    assert_eq!(cells, [Cell { batch: 0, row: 0 }, Cell { batch: 1, row: 0 }]);
}

/// A change of the model, valid or not: the walk follows its rules whatever a source sends.
#[derive(Debug, Clone)]
struct Chance {
    op: Op,
    key: i64,
    old: Option<i64>,
    note_out: bool,
    big_out: bool,
    ends_batch: bool,
}

fn chance() -> impl Strategy<Value = Chance> {
    let op = prop_oneof![
        1 => Just(Op::Read), 2 => Just(Op::Insert), 6 => Just(Op::Update), 2 => Just(Op::Delete)
    ];
    let old = proptest::option::weighted(0.4, 0..6_i64);
    (op, 0..6_i64, old, any::<bool>(), any::<bool>(), proptest::bool::weighted(0.2)).prop_map(
        |(op, key, old, note_out, big_out, ends_batch)| {
            let partial = op == Op::Update;
            Chance {
                op,
                key,
                old: old.filter(|old| partial && *old != key),
                note_out: note_out && partial,
                big_out: big_out && partial,
                ends_batch,
            }
        },
    )
}

/// Where a model row's value is: a number for each value sent, the lake's row, or nowhere.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    Sent(i64),
    Lake(i64),
    Nowhere,
}

type Model = BTreeMap<i64, Option<[Place; 2]>>;

fn model(steps: &[Chance]) -> Model {
    let mut model = Model::new();
    for (sent, step) in steps.iter().enumerate() {
        if step.op == Op::Delete {
            model.insert(step.key, None);
            continue;
        }
        let from = step.old.unwrap_or(step.key);
        let before = match model.get(&from) {
            None => [Place::Lake(from); 2],
            Some(None) => [Place::Nowhere; 2],
            Some(Some(row)) => *row,
        };
        let sent = Place::Sent(sent as i64);
        let row = [
            if step.note_out { before[0] } else { sent },
            if step.big_out { before[1] } else { sent },
        ];
        model.insert(from, None);
        model.insert(step.key, Some(row));
    }
    model
}

fn key_value(text: bool, key: i64) -> Value<'static> {
    match text {
        true => Value::OwnedText(format!("key {key}")),
        false => Value::Int(key),
    }
}

fn chance_batches(schema: &Arc<TableSchema>, text: bool, steps: &[Chance]) -> Vec<Batch> {
    let mut batches = Vec::new();
    let mut builder = Builder::new(schema.clone());
    for (sent, step) in steps.iter().enumerate() {
        let value = |out| if out { U } else { Value::Int(sent as i64) };
        let row = [key_value(text, step.key), value(step.note_out), value(step.big_out)];
        let old = step.old.or((step.op == Op::Delete).then_some(step.key));
        let old = old.map(|old| [key_value(text, old), Value::Null, Value::Null]);
        let new = (step.op != Op::Delete).then_some(row.as_slice());
        builder.push(step.op, old.as_ref().map(|old| old.as_slice()), new).unwrap();
        if step.ends_batch {
            let full = std::mem::replace(&mut builder, Builder::new(schema.clone()));
            batches.push(full.finish());
        }
    }
    batches.push(builder.finish());
    batches
}

/// The model that `collapsed` says.
fn told(collapsed: &Collapsed, text: bool) -> Model {
    let key = |number| match text {
        true => {
            let bytes = &collapsed.keys.get(number)[4..];
            std::str::from_utf8(bytes).unwrap()[4..].parse().unwrap()
        }
        false => id(&collapsed.keys, number),
    };
    let mut model: Model = collapsed.removals.iter().map(|r| (key(r.key), None)).collect();
    assert_eq!(model.len(), collapsed.removals.len());
    for row in &collapsed.rows {
        let place = |column: usize| {
            let from = row.carried.iter().find(|(c, _)| *c == column as u32).map(|(_, from)| *from);
            let sent = |cell: Cell| {
                let batch = &collapsed.batches[cell.batch as usize];
                assert!(!batch.is_unchanged(column, cell.row));
                let array = batch.columns.column(column);
                match lakeward_connectors::key::value_at(&Type::Int64, array, cell.row as usize) {
                    Some(Value::Int(value)) => Place::Sent(value),
                    other => panic!("{other:?}"),
                }
            };
            match from {
                None => sent(row.from),
                Some(From::Run(cell)) => sent(cell),
                Some(From::Lake(number)) => Place::Lake(key(number)),
                Some(From::Nowhere) => Place::Nowhere,
            }
        };
        let places = [place(1), place(2)];
        assert!(row.carried.is_sorted_by_key(|(column, _)| *column));
        assert_eq!(model.insert(key(row.key), Some(places)), Some(None));
    }
    model
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_run_is_what_the_model_says(
        steps in proptest::collection::vec(chance(), 0..40),
        text: bool,
    ) {
        let kind = if text { Type::Text } else { Type::Int64 };
        let schema = schema(kind, Identity::Key(vec![0]));
        let collapsed = collapse(chance_batches(&schema, text, &steps)).unwrap();
        prop_assert_eq!(told(&collapsed, text), model(&steps));
    }

    #[test]
    fn any_run_of_equal_rows_keeps_the_count(
        lake in proptest::collection::vec(0..4_i64, 0..12),
        steps in proptest::collection::vec((any::<bool>(), 0..4_i64), 0..40),
    ) {
        let full = schema(Type::Int64, Identity::FullRow);
        let mut source = [0_i64; 4];
        lake.iter().for_each(|&value| source[value as usize] += 1);
        let mut counts = source;
        let mut changes = Vec::new();
        for (adds, value) in steps {
            if adds || source[value as usize] > 0 {
                source[value as usize] += if adds { 1 } else { -1 };
                let op = if adds { Op::Insert } else { Op::Delete };
                changes.push((op, None, row(value, 0, Value::Null)));
            }
        }
        let half = changes.len() / 2;
        let batches = vec![batch(&full, &changes[..half]), batch(&full, &changes[half..])];
        let collapsed = collapse(batches).unwrap();
        // A flag byte precedes each value of a full row.
        let value = |key| collapsed.keys.get(key)[8] as usize;
        for removal in &collapsed.removals {
            counts[value(removal.key)] -= i64::from(removal.rows);
            prop_assert!(counts[value(removal.key)] >= 0, "more removed than the lake holds");
        }
        collapsed.rows.iter().for_each(|row| counts[value(row.key)] += 1);
        prop_assert_eq!(counts, source);
    }
}

/// Nanoseconds that this thread has run: the clock of a machine that others share.
fn on_cpu() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

/// `cargo test --release collapse_speed -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn collapse_speed() {
    for (text, partial) in [(false, false), (false, true), (true, false)] {
        for distinct in [100_000, 1_000_000_u64] {
            let kind = if text { Type::Text } else { Type::Int64 };
            let schema = schema(kind, Identity::Key(vec![0]));
            let mut seed = 7_u64;
            let steps: Vec<Chance> = (0..1_000_000)
                .map(|_| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let key = ((seed >> 33) % distinct) as i64;
                    let (op, old) = (Op::Update, None);
                    let ends_batch = false;
                    Chance { op, key, old, note_out: false, big_out: partial, ends_batch }
                })
                .collect();
            let batches = chance_batches(&schema, text, &steps);
            let best = (0..7)
                .map(|_| {
                    let batches = batches.clone();
                    let start = on_cpu();
                    let collapsed = collapse(batches).unwrap();
                    let took = on_cpu() - start;
                    std::hint::black_box(collapsed);
                    took
                })
                .min()
                .unwrap();
            let speed = steps.len() as f64 / best as f64 * 1e3;
            println!("text {text} partial {partial} of {distinct}: {speed:.1} M changes/s");
        }
    }
}
