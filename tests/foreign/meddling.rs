//! What the other writer does to the table, at any moment; and what it then reads.

use std::collections::BTreeSet;

use lakeward_connectors::{ErrorKind, Op, Value};
use serde_json::{Value as Json, json};

use super::columns::{NUMBER, Row, literal};
use super::delta_rs::Answer;
use super::life::Life;
use crate::support::scene::check;
use crate::support::{Res, shortened};

/// What it maintains: rows stay as they are.
const MAINTAINS: [&str; 7] =
    ["optimize", "z-order", "vacuum", "vacuum", "checkpoint", "compact log", "clean up"];

/// Its words where it finds that somebody else was at work: another commit, or files gone.
const GIVES_WAY: [&str; 5] = [
    "Failed to commit transaction",
    "Object at location",
    "File not found",
    "No files in log segment",
    "Invalid table version",
];

impl Life<'_> {
    fn told(&self, what: &str, more: Json) -> Json {
        let mut told = json!({ "do": what, "url": self.url() });
        if let (Json::Object(told), Json::Object(more)) = (&mut told, more) {
            told.extend(more);
        }
        told
    }

    fn ask(&mut self, what: &str, more: Json) -> Res<Answer> {
        let told = self.told(what, more);
        self.story.push(format!("the other: {told}"));
        let answer = self.other.ask(&told)?;
        self.story.push(shortened(&format!("  {}, version {}", answer.count, answer.version), 200));
        Ok(answer)
    }

    /// The same, of what it must be able to do.
    fn have(&mut self, what: &str, more: Json) -> Res<Answer> {
        let answer = self.ask(what, more)?;
        match &answer.refused {
            None => Ok(answer),
            Some(refused) => Err(format!("{what}: delta-rs refuses: {}: {refused}", answer.kind)),
        }
    }

    /// One of the things by which tables are maintained, and how.
    fn maintenance(&mut self) -> (&'static str, Json) {
        let what = self.rng.choice(MAINTAINS).unwrap_or("optimize");
        let more = match what {
            "z-order" => {
                let key = self.columns.schema.columns[0].name.clone();
                json!({ "by": if self.rng.bool() { key } else { NUMBER.to_owned() } })
            }
            "vacuum" => {
                // In full it deletes what no log names: vectors that are in use, and, without a
                // retention, what is about to be committed.
                let full = !self.marked && self.rng.bool();
                let now = self.rng.bool() && !(full && self.table.has_pending());
                json!({ "full": full, "now": now })
            }
            _ => json!({}),
        };
        (what, more)
    }

    /// It maintains the table as it is.
    pub fn maintains(&mut self) -> Res<()> {
        let (what, more) = self.maintenance();
        let answer = self.have(what, more)?;
        self.maintained(what, &answer);
        Ok(())
    }

    fn maintained(&mut self, what: &str, answer: &Answer) {
        let count = answer.count as usize;
        // It doesn't notice another one of its own (deltalake 1.6.6), and doubles rows.
        self.holds &= !matches!(what, "optimize" | "z-order");
        match what {
            "optimize" => self.seen.optimized += count,
            "z-order" => self.seen.z_ordered += count,
            "vacuum" => {
                self.seen.vacuumed += count;
                self.swept |= count > 0;
            }
            "checkpoint" => self.seen.checkpoints += 1,
            "compact log" => self.seen.log_compacted += count,
            _ => self.seen.cleaned += 1,
        }
    }

    /// It maintains the table as it once was; or takes hold of it for that.
    pub fn maintains_late(&mut self) -> Res<()> {
        if !std::mem::replace(&mut self.holds, true) || self.rng.u8(..4) == 0 {
            return self.have("hold", json!({})).map(drop);
        }
        let (what, mut more) = self.maintenance();
        if more["full"] == true {
            more["now"] = false.into();
        }
        more["stale"] = true.into();
        let answer = self.ask(what, more)?;
        self.gave_way(what, &answer)
    }

    /// It maintains the table while this one commits.
    pub async fn races(&mut self) -> Res<()> {
        if !self.table.has_pending() {
            self.run().await?;
        }
        let (what, mut more) = self.maintenance();
        if more["full"] == true {
            more["now"] = false.into();
        }
        let told = self.told(what, more);
        self.story.push(format!("the other, at the same time: {told}"));
        self.seen.races += 1;
        self.other.tell(&told)?;
        // Files may be gone as soon as it begins.
        self.swept |= what == "vacuum";
        let committed = self.commit().await;
        let answer = self.other.answer()?;
        self.gave_way(what, &answer)?;
        committed
    }

    /// It may have found another commit in its way, or files gone; then it has done nothing.
    fn gave_way(&mut self, what: &str, answer: &Answer) -> Res<()> {
        let Some(refused) = &answer.refused else {
            self.maintained(what, answer);
            return Ok(());
        };
        check(GIVES_WAY.iter().any(|words| refused.contains(words)), || {
            format!("{what}: delta-rs refuses: {}: {refused}", answer.kind)
        })?;
        // It may have come half way.
        self.swept |= what == "vacuum";
        self.seen.gave_way += 1;
        self.story.push(format!("  it gave way: {}", shortened(refused, 200)));
        Ok(())
    }

    /// It sets properties of the table.
    pub fn sets(&mut self) -> Res<()> {
        self.seen.properties += 1;
        let (name, value) = match self.rng.u8(..4) {
            3 => return self.have("describe", json!({ "text": "what it is for" })).map(drop),
            0 => ("delta.checkpointInterval", self.rng.u8(1..6).to_string()),
            1 => {
                let days = if self.rng.bool() { 0 } else { 30 };
                ("delta.logRetentionDuration", format!("interval {days} days"))
            }
            _ => {
                let weeks = self.rng.u8(1..3);
                ("delta.deletedFileRetentionDuration", format!("interval {weeks} weeks"))
            }
        };
        self.have("set", json!({ "properties": { name: value } })).map(drop)
    }

    /// It moves all rows, and leaves nothing of where they were.
    pub fn sweeps(&mut self) -> Res<()> {
        let moved = self.have("z-order", json!({ "by": NUMBER }))?;
        self.maintained("z-order", &moved);
        let swept = self.have("vacuum", json!({ "full": false, "now": true }))?;
        self.maintained("vacuum", &swept);
        Ok(())
    }

    /// It keeps no more of the log than it has to.
    pub fn forgets(&mut self) -> Res<()> {
        let kept = json!({ "delta.logRetentionDuration": "interval 0 days" });
        self.have("set", json!({ "properties": kept }))?;
        self.maintains()?;
        self.have("checkpoint", json!({}))?;
        self.have("clean up", json!({}))?;
        self.seen.forgot += 1;
        Ok(())
    }

    /// It deletes rows, or changes their numbers.
    pub fn changes(&mut self) -> Res<()> {
        let (sql, hits) = self.predicate();
        let number = self.columns.number;
        let mut rows = self.committed.clone();
        let about = if self.rng.bool() {
            let told = self.have("delete", json!({ "where": sql }))?;
            let about = rows.each(|row| hits(number, row), |_| false);
            self.seen.deleted += about as usize;
            (told.count, about)
        } else {
            let by = format!("{NUMBER} % 100 + 1");
            let told = self.have("update", json!({ "where": sql, "set": { NUMBER: by } }))?;
            let about = rows.each(
                |row| hits(number, row),
                |row| {
                    if let Value::Int(is) = row[number] {
                        row[number] = Value::Int(is % 100 + 1);
                    }
                    true
                },
            );
            self.seen.updated += about as usize;
            (told.count, about)
        };
        check(about.0 == about.1, || format!("it is about {} rows, not {}", about.0, about.1))?;
        self.changed |= about.1 > 0;
        self.committed = rows;
        Ok(())
    }

    /// A predicate in SQL, and whether a row, with the number at that place, meets it.
    #[allow(clippy::type_complexity)]
    fn predicate(&mut self) -> (Json, Box<dyn Fn(usize, &Row) -> bool>) {
        let part = self.rng.i64(0..4);
        match self.rng.u8(..8) {
            0 => (Json::Null, Box::new(|_, _| true)),
            1 => (json!(format!("{NUMBER} is null")), Box::new(|at, row| row[at] == Value::Null)),
            2 | 3 => {
                let is =
                    move |at: usize, row: &Row| matches!(row[at], Value::Int(n) if n > part * 9);
                (json!(format!("{NUMBER} > {}", part * 9)), Box::new(is))
            }
            4 | 5 => {
                let is =
                    move |at: usize, row: &Row| matches!(row[at], Value::Int(n) if n % 4 == part);
                (json!(format!("{NUMBER} % 4 = {part}")), Box::new(is))
            }
            _ => {
                let picked = self.committed.iter().filter(|_| self.rng.u8(..5) == 0);
                let picked: Vec<Value<'static>> = picked.map(|row| row[0].clone()).collect();
                let texts: BTreeSet<String> = picked.iter().filter_map(literal).collect();
                if texts.is_empty() {
                    return (json!("false"), Box::new(|_, _| false));
                }
                let texts: Vec<_> = texts.into_iter().collect();
                let sql = format!("id in ({})", texts.join(", "));
                (json!(sql), Box::new(move |_, row| picked.contains(&row[0])))
            }
        }
    }

    /// It appends rows under keys that the table doesn't have.
    pub fn appends(&mut self) -> Res<()> {
        let waiting = self.expected();
        let mut rows = self.committed.clone();
        let mut new = Vec::new();
        for _ in 0..self.rng.usize(1..4) {
            let row = self.columns.row(&mut self.rng);
            let key = self.columns.key_of(&row);
            // That the source has deleted what somebody else brings meanwhile is not followed.
            let goes = !waiting.has(&key) && !self.waiting.is_empty();
            if rows.has(&key) || goes {
                continue;
            }
            rows.put(&self.columns, row.clone());
            new.push(row);
            self.strange.push(key);
        }
        if new.is_empty() {
            return Ok(());
        }
        self.append(&new)?;
        self.seen.appended += new.len();
        self.changed = true;
        self.committed = rows;
        Ok(())
    }

    fn append(&mut self, rows: &[Row]) -> Res<()> {
        let rows: Vec<_> = rows.iter().map(|row| self.columns.cells(row)).collect();
        self.have("append", json!({ "rows": rows })).map(drop)
    }

    /// It appends a row under a key that the table has: the next start says so, and goes on
    /// once the table is read again.
    pub async fn doubles(&mut self) -> Res<()> {
        self.commit().await?;
        let Some(row) = self.committed.iter().next().cloned() else { return Ok(()) };
        self.append(&[row])?;
        self.changed = true;
        self.crash().await?;
        let any = self.columns.row(&mut self.rng);
        let batch = self.columns.batch(&[(Op::Insert, None, Some(&any))])?;
        let run = lakeward::collapse::collapse(vec![batch]).map_err(|error| error.full())?;
        let error = match self.table.apply(&run).await {
            Ok(_) => return Err("two rows of one key are not noticed".to_owned()),
            Err(error) => error,
        };
        let said = error.full().contains("the lake holds two rows with the same key");
        let helps = error.remedy_text().is_some_and(|help| help.contains("lakeward snapshot"));
        let stops = error.kind() == ErrorKind::Table;
        check(said && helps && stops, || format!("it says: {}", error.full()))?;
        self.seen.doubled += 1;
        self.table.discard().await.map_err(|error| error.full())?;
        self.looked();
        self.generation().await?;
        self.commit().await
    }

    /// What the other writer reads is what was committed.
    pub fn other_reads(&mut self) -> Res<()> {
        let answer = self.have("read", json!({}))?;
        self.seen.read += 1;
        check(answer.columns == self.columns.expected(), || format!("{:?}", answer.columns))?;
        self.committed.equal(&self.columns, answer.rows).map_err(|e| format!("delta-rs reads {e}"))
    }
}
