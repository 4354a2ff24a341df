//! The load on MongoDB. Every document has an `_id`, so no collection has rows that are alike
//! (MongoDB manual, "Documents", "The _id Field"); the ledger's are made by the driver.

use ::mongodb::bson::{Bson, Document, doc};
use ::mongodb::error::{Error, ErrorKind};
use ::mongodb::options::ClientOptions;
use ::mongodb::{Client, ClientSession, Collection, Database};
use serde_json::Value;
use std::time::Duration;

use super::load::{Load, Origin, Writer};
use crate::support::daemon::{Setup, Source};
use crate::support::postgres::block_on;
use crate::support::{Res, mongodb, tag};

const SMALL: &[&str] = &["upsert", "other", "ledger"];

pub struct MongoDbLoad<'a> {
    origin: &'a Origin,
    url: String,
    name: String,
    db: Database,
}

/// A connection that notices within seconds that its server is gone.
async fn connect(url: &str) -> Result<Client, Error> {
    let mut options = ClientOptions::parse(url).await?;
    options.server_selection_timeout = Some(Duration::from_secs(5));
    Client::with_options(options)
}

impl<'a> MongoDbLoad<'a> {
    pub fn new(origin: &'a Origin, label: &str) -> Res<MongoDbLoad<'a>> {
        let (url, name) = (origin.url()?, format!("{}_{label}", tag()));
        let db = block_on(async {
            let db = connect(&url).await?.database(&name);
            db.drop().await?;
            for collection in SMALL {
                db.create_collection(*collection).await?;
            }
            let upsert = (1..=300).map(|n| row(n, 0, "start", "0123456789abcdef".repeat(200)));
            db.collection::<Document>("upsert").insert_many(upsert).await?;
            let other =
                (1..=200).map(|n| doc! { "_id": { "b": n, "a": n % 10 }, "b": n, "v": "o" });
            db.collection::<Document>("other").insert_many(other).await?;
            Ok::<_, Error>(db)
        });
        let db = db.map_err(|e| format!("making the load: {e}"))?;
        Ok(MongoDbLoad { origin, url, name, db })
    }

    fn collection(&self, name: &str) -> Collection<Document> {
        self.db.collection(name)
    }
}

impl Drop for MongoDbLoad<'_> {
    fn drop(&mut self) {
        if let Err(e) = block_on(async { self.db.drop().await }) {
            eprintln!("the database {} was left behind: {e}", self.name);
        }
    }
}

fn row(id: i32, n: i32, note: &str, big: String) -> Document {
    doc! { "_id": id, "n": n, "note": note, "big": big }
}

impl Load for MongoDbLoad<'_> {
    fn schema(&self) -> &str {
        &self.name
    }

    fn source(&self, name: &str) -> Source {
        Source::mongodb(name, &self.url, &self.name)
    }

    fn tables(&self) -> &'static [&'static str] {
        SMALL
    }

    fn big_tables(&self) -> &'static [&'static str] {
        &["big_int", "big_text"]
    }

    fn grow(&self) -> Res<()> {
        // The stand-in reads a range of keys by looking at every document: more takes it minutes.
        let (ints, texts) = if mongodb::is_real() { (150_000, 60_000) } else { (6_000, 4_000_u64) };
        let big = (1..=ints).map(|n| doc! { "_id": n, "v": format!("{n:032x}") });
        let text = (1..=texts).map(|n| {
            let key = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            doc! { "_id": format!("{key:016x}"), "v": n.to_string().repeat(10) }
        });
        block_on(async {
            self.collection("big_int").insert_many(big).await?;
            self.collection("big_text").insert_many(text).await
        })
        .map(|_| ())
        .map_err(|e| format!("making the big collections: {e}"))
    }

    fn change_big(&self) -> Res<()> {
        let grown = doc! { "$set": { "v": fastrand::u32(..).to_string() } };
        block_on(async {
            let some = doc! { "_id": { "$mod": [977, 3] } };
            self.collection("big_int").update_many(some, grown).await?;
            let some = doc! { "_id": { "$gte": "ab", "$lt": "ac" }, "v": { "$lt": "3" } };
            self.collection("big_text").delete_many(some).await
        })
        .map(|_| ())
        .map_err(|e| format!("changing the big collections: {e}"))
    }

    fn writer(&self) -> Res<Box<dyn Writer>> {
        let made = block_on(async {
            let client = connect(&self.url).await?;
            let session = client.start_session().await?;
            let db = client.database(&self.name);
            // A server that doesn't answer is found here, not in the first transaction.
            db.run_command(doc! { "ping": 1 }).await?;
            Ok::<_, Error>(Session { db, session })
        });
        Ok(Box::new(made.map_err(|e| format!("connecting a writer: {e}"))?))
    }

    fn equal(&self, setup: &Setup, source: &str, table: &str) -> Res<()> {
        mongodb::equal(&self.url, setup, source, &self.name, &[table.to_owned()])
    }

    fn acknowledged(&self, _: &str, _: &Value) -> Res<Option<bool>> {
        Ok(None)
    }

    fn crash(&self) -> Res<()> {
        self.origin.crash()
    }
}

struct Session {
    db: Database,
    session: ClientSession,
}

impl Writer for Session {
    fn transact(&mut self, random: &mut fastrand::Rng, seqs: &[i64]) -> Res<bool> {
        let Err(e) = block_on(self.commit(random, seqs)) else { return Ok(true) };
        // Refused when the server has ended it already, which is as good.
        let _aborted = block_on(async { self.session.abort_transaction().await });
        // Written to by the other one, or a key that is taken. A connection that broke is called
        // transient, too, but nobody answered.
        let answered = matches!(
            e.kind.as_ref(),
            ErrorKind::Command(_) | ErrorKind::Write(_) | ErrorKind::InsertMany(_)
        );
        let gives_way = e.contains_label("TransientTransactionError") || is_taken(&e);
        if answered && gives_way { Ok(false) } else { Err(e.to_string()) }
    }

    fn present(&mut self, seqs: &[i64]) -> Res<Vec<i64>> {
        let seqs: Vec<Bson> = seqs.iter().map(|seq| Bson::Int64(*seq)).collect();
        block_on(async {
            let ledger = self.db.collection::<Document>("ledger");
            ledger.distinct("seq", doc! { "seq": { "$in": seqs } }).await
        })
        .map(|found| found.iter().filter_map(Bson::as_i64).collect())
        .map_err(|e| format!("looking into the ledger: {e}"))
    }
}

fn is_taken(error: &Error) -> bool {
    error.to_string().contains("11000")
}

impl Session {
    async fn commit(&mut self, random: &mut fastrand::Rng, seqs: &[i64]) -> Result<(), Error> {
        self.session.start_transaction().await?;
        let key = random.i32(1..400);
        for _ in 0..random.usize(1..5) {
            self.change(random, key).await?;
        }
        let entries = seqs.iter().map(|seq| doc! { "seq": *seq, "payload": format!("{seq:032x}") });
        let ledger = self.db.collection::<Document>("ledger");
        ledger.insert_many(entries).session(&mut self.session).await?;
        self.session.commit_transaction().await
    }

    async fn change(&mut self, random: &mut fastrand::Rng, key: i32) -> Result<(), Error> {
        let (upsert, other) =
            (self.db.collection::<Document>("upsert"), self.db.collection::<Document>("other"));
        let session = &mut self.session;
        let grown = doc! { "$inc": { "n": 1 } };
        match random.u32(0..7) {
            0 => {
                let first = doc! { "note": "new", "big": key.to_string().repeat(2000) };
                let change = doc! { "$inc": { "n": 1 }, "$setOnInsert": first };
                upsert
                    .update_one(doc! { "_id": key }, change)
                    .upsert(true)
                    .session(session)
                    .await?;
            }
            1 => {
                upsert.delete_one(doc! { "_id": key }).session(session).await?;
            }
            // An _id never changes: the document goes and comes back with another.
            2 => {
                let gone = upsert.find_one_and_delete(doc! { "_id": key });
                if let Some(mut gone) = gone.session(&mut *session).await? {
                    gone.insert("_id", -key);
                    let at = doc! { "_id": -key };
                    upsert.replace_one(at, gone).upsert(true).session(session).await?;
                }
            }
            3 => {
                let next = doc! { "$set": { "v": format!("x{}", random.u32(..)) } };
                let some = doc! { "b": { "$mod": [20, key % 20] } };
                other.update_many(some, next).session(session).await?;
            }
            4 => {
                let at = doc! { "_id": { "b": key % 200 + 1, "a": (key % 200 + 1) % 10 } };
                let whole = doc! { "b": key % 200 + 1, "v": "again" };
                other.replace_one(at, whole).session(session).await?;
            }
            5 => {
                let at = doc! { "_id": { "$gte": key, "$lte": key + 5 } };
                upsert.delete_many(at).session(session).await?;
            }
            _ => {
                let some = doc! { "_id": { "$gte": key, "$lte": key + 20 } };
                upsert.update_many(some, grown).session(session).await?;
            }
        }
        Ok(())
    }
}
