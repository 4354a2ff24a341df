//! The change stream.

use super::super::decode::Found;
use super::*;
use crate::schema::Evolution;

fn ops(said: &Said, id: &TableId) -> Vec<Op> {
    said.rows.get(id).map_or(Vec::new(), |b| b.changes().iter().map(|change| change.op).collect())
}

async fn now(made: &mut Made) -> Time {
    made.source.view().await.unwrap().since
}

#[test]
fn every_change_is_streamed_once_and_in_order() {
    on_server("changes", |bed| async move {
        let collection = bed.collection("c");
        collection.insert_one(doc! { "_id": 0, "v": 0, "a": [1] }).await.unwrap();
        let mut made = bed.made().await;
        let from = made.established.oldest.clone();
        let mut stream = made.stream(&from).await;
        collection.insert_one(doc! { "_id": 1, "v": 1 }).await.unwrap();
        collection.update_one(doc! { "_id": 0 }, doc! { "$push": { "a": 2 } }).await.unwrap();
        collection.update_one(doc! { "_id": 1 }, doc! { "$unset": { "v": "" } }).await.unwrap();
        collection.replace_one(doc! { "_id": 1 }, doc! { "v": 4 }).await.unwrap();
        collection.delete_one(doc! { "_id": 0 }).await.unwrap();
        let end = now(&mut made).await;
        let mut said = Said::default();
        said.read_to(&mut stream, end).await;
        let ops = ops(&said, &bed.id("c"));
        assert_eq!(ops, [Op::Insert, Op::Update, Op::Update, Op::Update, Op::Delete]);
        assert_eq!((said.begun.len(), said.commits.len()), (5, 5));
        assert!(said.begun.is_sorted() && said.resolved.is_empty());
        let times: Vec<_> = said.commits.iter().map(|position| position.time).collect();
        assert_eq!(times, said.begun);
        let last = said.rows.remove(&bed.id("c")).unwrap().finish();
        let documents = documents(&[last]);
        assert_eq!(documents.last().unwrap(), &canonical(&doc! { "_id": 1, "v": 4 }));

        // From each position on there is exactly what follows.
        for (at, position) in said.commits.iter().enumerate() {
            let mut stream = made.stream(position).await;
            let mut again = Said::default();
            again.read_to(&mut stream, end).await;
            assert_eq!(again.begun, said.begun[at + 1..]);
        }
    });
}

/// Not seen on the stand-in: paths that are told without doubt (`disambiguatedPaths`), which it does
/// not send; names with dots are left out here.
#[test]
fn what_updates_changed_is_the_document() {
    on_server("patches", |bed| async move {
        let collection = bed.collection("c");
        let first = doc! {
            "_id": 1, "n": 1, "d": { "x": 1, "y": { "z": [1, 2, 3] } }, "a": [{ "q": 1 }, 2, 3, 4],
        };
        collection.insert_one(&first).await.unwrap();
        let mut made = bed.made().await;
        let from = made.established.oldest.clone();
        let mut stream = made.stream(&from).await;
        let updates = [
            doc! { "$set": { "d.y.w": "new", "n": 2 } },
            doc! { "$unset": { "d.x": "" }, "$push": { "a": { "q": [] } } },
            doc! { "$set": { "a.0.q": { "deep": Bson::Null } } },
            doc! { "$pop": { "a": 1 } },
            doc! { "$pull": { "d.y.z": 2 } },
            doc! { "$rename": { "n": "m" } },
            doc! { "$set": { "d.y.z.4": 5 }, "$inc": { "m": 40 } },
            doc! { "$push": { "a": { "$each": [7], "$position": 0 } } },
            doc! { "$set": { "a": [1] } },
            doc! { "$set": { "a.1": 2 } },
        ];
        let mut states = vec![canonical(&first)];
        for update in updates {
            collection.update_one(doc! { "_id": 1 }, update).await.unwrap();
            let now = collection.find_one(doc! { "_id": 1 }).await.unwrap().unwrap();
            states.push(canonical(&now));
        }
        let end = now(&mut made).await;
        let mut said = Said::default();
        said.read_to(&mut stream, end).await;
        let mut batches = said.done;
        batches.push(said.rows.remove(&bed.id("c")).unwrap().finish());
        let mut told = vec![states[0].clone()];
        for batch in &batches {
            let texts = documents(std::slice::from_ref(batch));
            for (change, text) in batch.changes.iter().zip(texts) {
                assert!(batch.is_patched(1, change.row.unwrap()), "the document came whole");
                told.push(crate::patch::apply(told.last().unwrap(), [text.as_str()]).unwrap());
            }
        }
        assert_eq!(told, states);
    });
}

/// Of servers before MongoDB 6.1.
#[test]
fn documents_are_looked_up() {
    on_server("lookup", |bed| async move {
        let there = doc! { "_id": 1, "v": 5 };
        bed.collection("c").insert_one(&there).await.unwrap();
        let mut made = bed.made().await;
        let time = now(&mut made).await;
        let event = |id: i32| {
            let event = doc! {
                "_id": { "_data": "82" },
                "operationType": "update",
                "clusterTime": ::mongodb::bson::Timestamp::from(time),
                "ns": { "db": &bed.name, "coll": "c" },
                "documentKey": { "_id": id },
            };
            let raw = ::mongodb::bson::RawDocumentBuf::try_from(&event).unwrap();
            bytes::Bytes::copy_from_slice(raw.as_bytes())
        };
        let server = made.source.server().await.unwrap();
        let filter = made.source.filter.clone();
        let documents = super::super::pump::Documents { server, filter };
        let found = documents.look_up(&[event(1), event(2)]).await.unwrap();
        let Some(Found::Document(document)) = found.get(&0) else { panic!("{found:?}") };
        assert_eq!(super::super::connection::owned(document).unwrap(), there);
        assert_eq!(found.get(&1), Some(&Found::Gone));
    });
}

#[test]
fn a_transaction_is_one_whatever_collections_it_touches() {
    on_server("txn", |bed| async move {
        for name in ["a", "b"] {
            bed.collection(name).insert_one(doc! { "_id": -1, "p": "x" }).await.unwrap();
        }
        let mut made = bed.made().await;
        let from = made.established.oldest.clone();
        let mut stream = made.stream(&from).await;
        let mut session = bed.client.start_session().await.unwrap();
        session.start_transaction().await.unwrap();
        for n in 0..300 {
            let document = doc! { "_id": n, "p": "x".repeat(1_000) };
            bed.collection("a").insert_one(document).session(&mut session).await.unwrap();
        }
        let one = doc! { "_id": 1, "n": 300 };
        bed.collection("b").insert_one(one).session(&mut session).await.unwrap();
        session.commit_transaction().await.unwrap();
        session.start_transaction().await.unwrap();
        let aborted = doc! { "_id": 2 };
        bed.collection("b").insert_one(aborted).session(&mut session).await.unwrap();
        session.abort_transaction().await.unwrap();
        let end = now(&mut made).await;
        let mut said = Said::default();
        said.read_to(&mut stream, end).await;
        assert_eq!((said.begun.len(), said.commits.len(), said.changes()), (1, 1, 301));
        // The new field is a new column, in place.
        let [Resolved::Schema(schema)] = said.resolved.as_slice() else { panic!() };
        let before = made.tables.iter().find(|table| table.id == schema.id).unwrap();
        assert_eq!(before.evolve(schema), Evolution::InPlace);
    });
}

#[test]
fn an_idle_log_is_read_to_its_end() {
    on_server("idle", |bed| async move {
        bed.collection("c").insert_one(doc! { "_id": 1 }).await.unwrap();
        let mut made = bed.made().await;
        let from = made.established.oldest.clone();
        let mut stream = made.stream(&from).await;
        // Another database's changes are not this stream's, but they move the log.
        let other = bed.client.database(&format!("{}_other", bed.name));
        for n in 0..50 {
            other.collection::<Document>("o").insert_one(doc! { "_id": n }).await.unwrap();
        }
        let end = now(&mut made).await;
        let mut said = Said::default();
        said.read_to(&mut stream, end).await;
        other.drop().await.unwrap();
        assert!(said.begun.is_empty());
        let idle = said.progress.take().unwrap();
        assert!(idle.token.is_some());
        // Reading goes on from a token of an idle stream.
        bed.collection("c").insert_one(doc! { "_id": 2 }).await.unwrap();
        let mut stream = made.stream(&idle).await;
        let end = now(&mut made).await;
        said.read_to(&mut stream, end).await;
        assert_eq!(said.changes(), 1);
    });
}

#[test]
fn drops_and_renames_empty_a_table_and_replacing_one_reads_it_again() {
    on_server("ddl", |bed| async move {
        for name in ["c", "r", "target"] {
            bed.collection(name).insert_one(doc! { "_id": 1 }).await.unwrap();
        }
        let mut made = bed.made().await;
        let from = made.established.oldest.clone();
        let mut stream = made.stream(&from).await;
        bed.collection("c").drop().await.unwrap();
        bed.collection("c").insert_one(doc! { "_id": 9 }).await.unwrap();
        let admin = bed.client.database("admin");
        let name = |name: &str| format!("{}.{name}", bed.name);
        let rename = doc! { "renameCollection": name("r"), "to": name("r2") };
        admin.run_command(rename).await.unwrap();
        let onto =
            doc! { "renameCollection": name("r2"), "to": name("target"), "dropTarget": true };
        admin.run_command(onto).await.unwrap();
        let end = now(&mut made).await;
        let mut said = Said { tables: made.tables.clone(), ..Said::default() };
        said.read_to(&mut stream, end).await;
        assert_eq!(&said.dropped[..2], [bed.id("c"), bed.id("r")]);
        assert_eq!(ops(&said, &bed.id("c")), [Op::Insert]);
        let lost = said.resolved.iter().any(
            |resolved| matches!(resolved, Resolved::Lost(id, why) if *id == bed.id("target") && why.contains("r2")),
        );
        assert!(lost || said.dropped.contains(&bed.id("target")), "{:?}", said.resolved);
    });
}

#[test]
fn dropping_the_database_ends_no_stream() {
    on_server("dropdb", |bed| async move {
        bed.collection("c").insert_one(doc! { "_id": 1 }).await.unwrap();
        let mut made = bed.made().await;
        let from = made.established.oldest.clone();
        let mut stream = made.stream(&from).await;
        bed.database().drop().await.unwrap();
        bed.collection("c").insert_one(doc! { "_id": 2 }).await.unwrap();
        let mut said = Said { tables: made.tables.clone(), ..Said::default() };
        said.read(&mut stream, |said| said.changes() == 1).await;
        assert_eq!(said.dropped, [bed.id("c")]);
    });
}

#[test]
fn a_value_of_another_kind_grows_the_shape() {
    on_server("widen", |bed| async move {
        let collection = bed.collection("c");
        collection.insert_one(doc! { "_id": 1, "n": 1 }).await.unwrap();
        let mut made = bed.made().await;
        let from = made.established.oldest.clone();
        let mut stream = made.stream(&from).await;
        collection.insert_one(doc! { "_id": 2, "n": 0.5 }).await.unwrap();
        collection.insert_one(doc! { "_id": "three", "n": "x" }).await.unwrap();
        let mut said = Said::default();
        said.read(&mut stream, |said| said.changes() >= 2).await;
        let Some(Resolved::Schema(schema)) = said.resolved.last() else { panic!() };
        assert!(matches!(made.tables[0].evolve(schema), Evolution::Snapshot(_)));
        let types: Vec<_> = schema.columns.iter().map(|c| c.source_type.as_str()).collect();
        assert_eq!(types, ["any", "document", "json"]);
    });
}

#[test]
fn a_log_that_is_gone_is_said_of_every_table() {
    on_server("gap", |bed| async move {
        bed.collection("c").insert_one(doc! { "_id": 1, "v": 1 }).await.unwrap();
        let mut made = bed.made().await;
        // A token that no server ever gave: as good as one whose events are gone.
        let token = Some(r#"{"_data":"8200000001000000012B0229296E04"}"#.to_owned());
        let from = Position { time: Time { seconds: 1, ordinal: 1 }, token };
        let mut stream = made.stream(&from).await;
        let mut said = Said::default();
        said.read(&mut stream, |said| !said.resolved.is_empty()).await;
        let [Resolved::Lost(id, why)] = said.resolved.as_slice() else { panic!() };
        assert!(*id == bed.id("c") && why.starts_with("gap: "), "{why}");
        stream.set_table(made.tables[0].clone());
        bed.collection("c").insert_one(doc! { "_id": 2, "v": 1 }).await.unwrap();
        said.read(&mut stream, |said| said.changes() == 1).await;
    });
}

#[test]
fn the_beginning_of_the_log_is_told() {
    on_server("begins", |bed| async move {
        bed.collection("c").insert_one(doc! { "_id": 0 }).await.unwrap();
        let mut made = bed.made().await;
        let (oldest, begins) = (made.established.oldest, made.established.begins.unwrap());
        assert!(oldest.covers(&begins), "{begins}, and reading begins at {oldest}");
        assert!(oldest.seconds_since(&begins).is_some());
        // Looked at again now and then only.
        let again = made.source.establish(&made.tables).await.unwrap();
        assert_eq!(again.begins, Some(begins));
    });
}

#[test]
fn only_what_the_patterns_want_is_streamed() {
    on_server("match", |bed| async move {
        for name in ["orders", "audit_1", "item1"] {
            bed.collection(name).insert_one(doc! { "_id": 0 }).await.unwrap();
        }
        let name = &bed.name;
        let patterns = [format!("{name}.orders"), format!("{name}.item?"), format!("{name}.z*")];
        let mut source =
            Mongodb::new(Options { tables: patterns.to_vec(), ..bed.options() }).unwrap();
        let tables = tables(&mut source).await;
        let names: Vec<_> = tables.iter().map(|table| table.id.name.clone()).collect();
        assert_eq!(names, ["item1", "orders"]);
        let established = source.establish(&tables).await.unwrap();
        let mut stream = source.stream(&established.oldest, &tables).await.unwrap();
        for name in ["audit_1", "orders", "item1"] {
            bed.collection(name).insert_one(doc! { "_id": 1 }).await.unwrap();
        }
        let end = source.view().await.unwrap().since;
        let mut said = Said::default();
        said.read_to(&mut stream, end).await;
        assert_eq!((said.changes(), said.begun.len()), (2, 2));
    });
}
