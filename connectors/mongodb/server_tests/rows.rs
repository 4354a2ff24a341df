//! What collections look like, and reading their documents.

use std::collections::BTreeSet;

use ::mongodb::bson::oid::ObjectId;
use ::mongodb::bson::spec::BinarySubtype;
use ::mongodb::bson::{Binary, DateTime, Decimal128, Timestamp};

use super::*;
use crate::schema::{Evolution, Type};

/// `_id`s of every type that an `_id` may have, in no order.
fn ids() -> Vec<Bson> {
    let binary = |subtype, bytes: &[u8]| Binary { subtype, bytes: bytes.to_vec() };
    let mut ids: Vec<Bson> = (0..300).map(|n| Bson::String(format!("s{n:05}"))).collect();
    ids.extend((0..300).map(Bson::Int32));
    ids.extend((0..300_u32).map(|n| {
        let mut bytes = [0x65; 12];
        bytes[8..].copy_from_slice(&n.to_be_bytes());
        Bson::ObjectId(ObjectId::from_bytes(bytes))
    }));
    ids.extend([
        Bson::MinKey,
        Bson::Double(0.5),
        Bson::Double(10.5),
        Bson::Double(f64::NAN),
        Bson::Double(f64::INFINITY),
        Bson::Double(f64::NEG_INFINITY),
        Bson::Int64(1 << 40),
        Bson::Decimal128("1.25".parse::<Decimal128>().unwrap()),
        Bson::Document(doc! { "a": 1 }),
        Bson::Document(doc! { "b": 1, "a": 1 }),
        Bson::Binary(binary(BinarySubtype::Generic, &[0])),
        Bson::Binary(binary(BinarySubtype::Uuid, &[7; 16])),
        Bson::Boolean(true),
        Bson::DateTime(DateTime::from_millis(1_704_067_200_000)),
        Bson::Timestamp(Timestamp { time: 1, increment: 1 }),
        Bson::MaxKey,
    ]);
    ids
}

#[test]
fn ids_of_all_types_are_read_once_each_in_chunks() {
    on_server("ids", |bed| async move {
        let all: Vec<Document> =
            ids().into_iter().map(|id| doc! { "_id": id, "pad": "x".repeat(100) }).collect();
        bed.collection("c").insert_many(&all).await.unwrap();
        let mut made = bed.made().await;
        let table = made.tables[0].clone();
        assert_eq!(table.columns[0].source_type, "any");
        let mut reader = made.source.reader(10_000).await.unwrap();
        let (mut range, mut batches, mut chunks) = (Some(Range::default()), Vec::new(), 0);
        while let Some(next) = range.take() {
            let read = chunk(&mut reader, &table, Rows::Next(next)).await.unwrap();
            assert!(read.high.covers(&Position::at(read.view.since)));
            batches.extend(read.batches);
            range = read.rest;
            chunks += 1;
        }
        assert!(chunks > 5, "{chunks} chunks");
        let read = documents(&batches);
        let wanted: BTreeSet<_> = all.iter().map(canonical).collect();
        assert_eq!(read.len(), all.len());
        assert_eq!(read.into_iter().collect::<BTreeSet<_>>(), wanted);
        let keys: BTreeSet<_> = column(&batches, "_id").into_iter().collect();
        assert_eq!(keys.len(), all.len());
        // Every key's text names its document, and no other; the first are of the rarer types.
        for key in keys.iter().take(20).chain(keys.iter().step_by(100)) {
            let read = chunk(&mut reader, &table, Rows::Keys(vec![vec![key.clone()]])).await;
            assert_eq!(column(&read.unwrap().batches, "_id"), [key.as_str()]);
        }
    });
}

#[test]
fn a_split_collection_is_the_whole_collection() {
    on_server("split", |bed| async move {
        let all: Vec<Document> = (0..21_000).map(|n| doc! { "_id": n * 2, "n": n }).collect();
        bed.collection("c").insert_many(&all).await.unwrap();
        let mut made = bed.made().await;
        let table = made.tables[0].clone();
        assert_eq!(table.columns[0].kind, Type::Int64);
        let mut reader = made.source.reader(1 << 20).await.unwrap();
        let ranges = reader.split(&table, 4).await.unwrap();
        assert!(ranges.len() > 1, "{ranges:?}");
        let mut seen = Vec::new();
        for range in ranges {
            let mut range = Some(range);
            while let Some(next) = range.take() {
                let read = chunk(&mut reader, &table, Rows::Next(next)).await.unwrap();
                seen.extend(documents(&read.batches));
                range = read.rest;
            }
        }
        let wanted: BTreeSet<_> = all.iter().map(canonical).collect();
        assert_eq!(seen.len(), wanted.len());
        assert!(seen.into_iter().collect::<BTreeSet<_>>() == wanted);
    });
}

#[test]
fn what_the_sample_does_not_show_is_learned_and_read_again() {
    on_server("learn", |bed| async move {
        let plain = |n: i32| doc! { "_id": n, "v": n };
        let mut all: Vec<Document> = (0..5_000).map(plain).collect();
        bed.collection("c").insert_many(&all).await.unwrap();
        let mut made = bed.made().await;
        let before = made.tables[0].clone();
        // Neither at an end, nor likely to be drawn: the sample was taken before.
        let odd = doc! { "_id": 2_500.5, "v": "text", "rare": true };
        bed.collection("c").insert_one(&odd).await.unwrap();
        all.push(odd);
        let mut reader = made.source.reader(1 << 20).await.unwrap();
        let refused = chunk(&mut reader, &before, Rows::Next(Range::default())).await;
        let error = refused.map(|_| ()).unwrap_err();
        assert_eq!(error.stopped_table(), Some(&bed.id("c")));
        let after = tables(&mut made.source).await[0].clone();
        assert!(matches!(before.evolve(&after), Evolution::Snapshot(_)));
        let types: Vec<_> = after.columns.iter().map(|c| c.source_type.as_str()).collect();
        assert_eq!(types, ["any", "document", "json", "bool"]);
        let read = chunk(&mut reader, &after, Rows::Next(Range::default())).await.unwrap();
        let wanted: BTreeSet<_> = all.iter().map(canonical).collect();
        assert_eq!(documents(&read.batches).into_iter().collect::<BTreeSet<_>>(), wanted);
    });
}

#[test]
fn what_the_lake_knows_of_a_collection_is_kept() {
    on_server("adopt", |bed| async move {
        let collection = bed.collection("c");
        collection.insert_one(doc! { "_id": 1, "a": 1, "b": "x" }).await.unwrap();
        let lake = bed.made().await.tables;
        collection
            .replace_one(doc! { "_id": 1 }, doc! { "_id": 1, "c": 2, "a": "x" })
            .await
            .unwrap();
        let mut made = bed.made().await;
        made.tables = lake.clone();
        let from = made.established.oldest.clone();
        let _stream = made.stream(&from).await;
        let now = tables(&mut made.source).await;
        let columns: Vec<_> =
            now[0].columns.iter().map(|c| (c.name.as_str(), c.source_type.as_str())).collect();
        let wanted =
            [("_id", "long"), ("_doc", "document"), ("a", "json"), ("b", "string"), ("c", "long")];
        assert_eq!(columns, wanted);
        assert!(lake[0].columns.iter().zip(&now[0].columns).all(|(was, is)| was.id == is.id));
    });
}

#[test]
fn views_and_time_series_are_refused_with_the_reason() {
    on_server("refuse", |bed| async move {
        bed.collection("c").insert_one(doc! { "_id": 1 }).await.unwrap();
        let database = bed.database();
        let view = doc! { "create": "v", "viewOn": "c", "pipeline": [] };
        database.run_command(view).await.unwrap();
        let series = doc! { "create": "ts", "timeseries": { "timeField": "t" } };
        database.run_command(series).await.unwrap();
        let mut source = Mongodb::new(bed.options()).unwrap();
        let found = source.discover().await.unwrap();
        let kept: Vec<_> = found.tables.iter().map(|listed| &listed.schema.id.name).collect();
        assert_eq!(kept, ["c"]);
        let refused: Vec<_> = found.refused.iter().map(|(id, why)| (&*id.name, why)).collect();
        assert!(refused[0].0 == "ts" && refused[0].1.contains("time series"), "{refused:?}");
        assert!(refused[1].0 == "v" && refused[1].1.contains("view"), "{refused:?}");
        let findings = source.check().await.unwrap();
        assert!(findings.iter().all(|finding| !finding.fatal), "{findings:?}");
        // Only before MongoDB 6.1 they are needed.
        assert!(!findings.iter().any(|f| f.remedy.contains("changeStreamPreAndPostImages")));
    });
}
