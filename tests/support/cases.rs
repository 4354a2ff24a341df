//! A case: a script, and what differs from the plain rule for it.

use std::collections::HashMap;

use serde_json::Value;

use super::script::{Dialect, Script, Step};
use super::status::TableStatus;
use super::{Context, Res};

/// What happens to a statement in place of the plain rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// It works, whatever error the script expects.
    Works,
    /// It works, or fails with this text.
    MayFail(&'static str),
    /// It drops the slot of the daemon, if there is one.
    DropDaemonSlot,
}

/// What must be observed of a table instead of equal rows: it stopped, `status` gives a reason
/// that contains every one of these texts (in any case), and the lake holds no wrong row of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deviation {
    pub table: String,
    pub reason: Vec<String>,
}

impl Deviation {
    pub fn observed(&self, status: Option<&TableStatus>, table: &str) -> Res<()> {
        let status = status.ok_or(format!("{table}: should be stopped, status doesn't name it"))?;
        let reason = status.reason.to_lowercase();
        let says = self.reason.iter().all(|text| reason.contains(&text.to_lowercase()));
        if matches!(status.state.as_str(), "stopped" | "refused") && says {
            return Ok(());
        }
        Err(format!("should be stopped with a reason that names {:?}, but {status}", self.reason))
    }
}

/// How a case is run in other than the plain way; the default is the plain way.
#[derive(Clone, Default)]
pub struct Adjust {
    /// Texts to replace in statements; `{db}` in the replacement is the database's name.
    pub replace: &'static [(&'static str, &'static str)],
    /// Statements that contain the text follow the rule.
    pub rules: &'static [(&'static str, Rule)],
    /// The configured `tables`; empty: what the script's option `config` says, else `public.*`.
    pub tables: &'static [&'static str],
    /// Columns configured as text, of the table `public.t`.
    pub text_columns: &'static [&'static str],
    /// The script reads a slot `s_<database>` and a publication `trap_pub` of its own.
    pub own_slot: bool,
    /// Tables whose recorded rows differ from server to server: only the live source counts.
    pub live_only: &'static [&'static str],
    pub deviations: Vec<Deviation>,
    /// The script changes rows without the log: only what was there at the first start counts.
    pub unlogged: bool,
}

impl Adjust {
    /// Whether some rows of the source may be missing in the lake.
    pub fn deviates(&self) -> bool {
        self.unlogged || !self.deviations.is_empty()
    }
}

pub struct Case {
    pub id: String,
    pub script: Script,
    pub adjust: Adjust,
    /// The rows recorded for it, by table.
    pub recorded: HashMap<String, Value>,
}

impl Case {
    /// Script options beside those of [`super::script`]: `config=` the configured tables,
    /// `text=` columns of `public.t` kept as text, `optional=` columns the lake may lack,
    /// `stopped=t:word+word` a table that must stop with a reason that has these words.
    pub fn new(id: &str, sql: &str, recorded: Option<&str>, adjust: Adjust) -> Res<Case> {
        Case::of(Dialect::Postgres, id, sql, recorded, adjust)
    }

    pub fn of(
        dialect: Dialect,
        id: &str,
        sql: &str,
        recorded: Option<&str>,
        mut adjust: Adjust,
    ) -> Res<Case> {
        let script = Script::parse(sql, dialect).context(id)?;
        for stopped in script.list("stopped") {
            let (table, words) =
                stopped.split_once(':').ok_or(format!("{id}: stopped={stopped}?"))?;
            let reason = words.split('+').map(|w| w.replace('~', " ")).collect();
            adjust.deviations.push(Deviation { table: table.to_owned(), reason });
        }
        let mut tables = HashMap::new();
        if let Some(text) = recorded {
            let value: Value = serde_json::from_str(text).context(id)?;
            let map = value["tables"].as_object().ok_or(format!("{id}: no tables recorded"))?;
            tables.extend(map.iter().map(|(k, v)| (k.clone(), v.clone())));
        }
        Ok(Case { id: id.to_owned(), script, adjust, recorded: tables })
    }

    /// The tables to compare, as (schema, name).
    pub fn tables(&self) -> Vec<(String, String)> {
        let split = |t: String| match t.split_once('.') {
            Some((schema, name)) if !schema.is_empty() => {
                (schema.replace('~', " "), name.replace('~', " "))
            }
            _ => ("public".to_owned(), t.replace('~', " ").replace('`', "")),
        };
        self.script.list("tables").into_iter().map(split).collect()
    }

    pub fn patterns(&self, schema: &str) -> Vec<String> {
        match (self.adjust.tables, self.script.list("config")) {
            ([], list) if list.is_empty() => vec![format!("{schema}.*")],
            ([], list) => list,
            (tables, _) => tables.iter().map(|t| (*t).to_owned()).collect(),
        }
    }

    pub fn text_columns(&self, schema: &str) -> Vec<(String, Vec<String>)> {
        let mut columns = self.script.list("text");
        columns.extend(self.adjust.text_columns.iter().map(|c| (*c).to_owned()));
        if columns.is_empty() { Vec::new() } else { vec![(format!("{schema}.t"), columns)] }
    }

    pub fn optional_columns(&self) -> Vec<String> {
        self.script.list("optional")
    }

    pub fn rule(&self, sql: &str) -> Option<Rule> {
        self.adjust.rules.iter().find(|(text, _)| sql.contains(text)).map(|(_, rule)| *rule)
    }

    pub fn deviation(&self, table: &str) -> Option<&Deviation> {
        self.adjust.deviations.iter().find(|d| d.table == table)
    }

    /// The statement with names that are unique on the server.
    pub fn localised(&self, sql: &str, database: &str) -> String {
        let slot = format!("s_trap_{}", self.id.to_lowercase().replace('-', "_"));
        let mut sql = sql.replace(&slot, &format!("s_{database}")).replace("{db}", database);
        for (from, to) in self.adjust.replace {
            sql = sql.replace(from, &to.replace("{db}", database));
        }
        sql
    }

    /// Whether the script drops or renames columns, so that the lake may hold more of them.
    pub fn loses_columns(&self) -> bool {
        let loses = |sql: &String| {
            let sql = sql.to_lowercase();
            sql.contains("drop column") || sql.contains(" rename ")
        };
        let steps = self.script.setup.iter().chain(&self.script.live);
        steps.into_iter().any(|step| matches!(step, Step::Sql(sql) if loses(sql)))
    }
}
