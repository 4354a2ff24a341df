//! `[source.NAME.table."schema.table"]`: what is said of single tables.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use lakeward_connectors::schema::TableId;
use toml::de::DeTable;

use super::lake::duration;
use super::reader::{Item, Reader};
use super::source::is_position;
use crate::delta::Merge;
use crate::shape::{Changes, ColumnFilter, Filter, Mask, MaskKey, Mode, PartitionBy, Shape};
use crate::start::SnapshotMode;

/// What `[source.NAME.table."…"]` says of a source's tables.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PerTable {
    /// Columns that are kept as the source's text.
    pub text_columns: HashMap<TableId, Vec<String>>,
    /// How changed rows are merged, where it is not the default.
    pub merge: BTreeMap<TableId, Merge>,
    /// How far apart merges are at least.
    pub merge_interval: BTreeMap<TableId, Duration>,
    /// What becomes of rows that a table has when it is first kept, where it is not the default.
    pub snapshot_modes: BTreeMap<TableId, SnapshotMode>,
    /// What is other than in the source.
    pub shapes: BTreeMap<TableId, Shape>,
    /// The same of all other tables.
    pub shape: Shape,
}

/// The keys of a table's section.
const KEYS: [&str; 11] = [
    "snapshot",
    "from",
    "merge",
    "merge_interval",
    "text_columns",
    "mode",
    "columns",
    "rename",
    "mask",
    "rows",
    "partition_by",
];

impl Reader<'_> {
    /// The sections of the tables of the source `name`.
    pub(super) fn tables(&mut self, name: &str, kind: &str, of: &DeTable<'_>) -> PerTable {
        let mut found = PerTable { shape: self.policy(name, of), ..PerTable::default() };
        let Some(item) = of.get("table") else { return found };
        let Some(tables) = self.table(&format!("source.{name}.table"), item) else {
            return found;
        };
        for (key, item) in tables {
            let place = format!("[source.{name}.table.\"{}\"]", key.get_ref());
            let Ok(id) = TableId::try_from(key.get_ref().to_string()) else {
                self.fault(
                    key.span().start,
                    format!("{place}: name the table as \"schema.table\""),
                );
                continue;
            };
            let Some(table) = self.table(&place, item) else { continue };
            self.only(&place, table, &KEYS);
            if let Some(item) = table.get("merge") {
                let wanted = "\"rewrite\" or \"deletion-vectors\"";
                let merge = self.parsed(&format!("{place} merge"), item, wanted, Merge::parse);
                found.merge.extend(merge.map(|merge| (id.clone(), merge)));
            }
            if let Some(item) = table.get("merge_interval") {
                let wanted = "a time like \"30s\" or \"5m\"";
                let key = format!("{place} merge_interval");
                let interval = self.parsed(&key, item, wanted, duration);
                found.merge_interval.extend(interval.map(|interval| (id.clone(), interval)));
            }
            if let Some(item) = table.get("text_columns") {
                let columns = self.texts(&format!("{place} text_columns"), item);
                let columns = columns.into_iter().map(|(_, column)| column).collect();
                found.text_columns.insert(id.clone(), columns);
            }
            let mode = self.snapshot_mode(&place, kind, table);
            found.snapshot_modes.extend(mode.map(|mode| (id.clone(), mode)));
            let shape = self.shape(&place, table, &found.shape);
            found.shapes.insert(id, shape);
        }
        found
    }

    /// What becomes of rows that the table has; `None`: they are read.
    fn snapshot_mode(
        &mut self,
        place: &str,
        kind: &str,
        table: &DeTable<'_>,
    ) -> Option<SnapshotMode> {
        let parse = |text: &str| match text {
            "initial" => Some(SnapshotMode::Initial),
            "schema" => Some(SnapshotMode::Schema),
            "never" => Some(SnapshotMode::Never(None)),
            _ => None,
        };
        let wanted = "\"initial\", \"schema\" or \"never\"";
        let item = table.get("snapshot");
        let mode = item.and_then(|i| self.parsed(&format!("{place} snapshot"), i, wanted, parse));
        let Some(item) = table.get("from") else {
            return mode.filter(|mode| *mode != SnapshotMode::Initial);
        };
        let from = self.text(&format!("{place} from"), item);
        if mode != Some(SnapshotMode::Never(None)) {
            let why = "says from where the lake's rows are followed; it wants snapshot = \"never\"";
            self.fault(item.span().start, format!("{place} from {why}"));
        }
        if let Some(Err(why)) = from.as_deref().map(|from| is_position(kind, from)) {
            self.fault(item.span().start, format!("{place} from: {why}"));
        }
        Some(SnapshotMode::Never(from))
    }

    /// What becomes of columns that come and go, in all tables of a source.
    fn policy(&mut self, name: &str, of: &DeTable<'_>) -> Shape {
        let mut shape = Shape::default();
        if let Some(item) = of.get("schema_changes") {
            let key = format!("source.{name}.schema_changes");
            let wanted = "\"follow\", \"ignore-new\" or \"stop\"";
            shape.changes = self.parsed(&key, item, wanted, Changes::parse).unwrap_or_default();
        }
        if let Some(item) = of.get("dropped_columns") {
            let key = format!("source.{name}.dropped_columns");
            let parse = |text: &str| match text {
                "keep" => Some(false),
                "remove" => Some(true),
                _ => None,
            };
            let removes = self.parsed(&key, item, "\"keep\" or \"remove\"", parse);
            shape.removes_dropped = removes.unwrap_or_default();
        }
        shape
    }

    fn shape(&mut self, place: &str, table: &DeTable<'_>, policy: &Shape) -> Shape {
        let mut shape = policy.clone();
        if let Some(item) = table.get("mode") {
            let wanted = "\"mirror\", \"soft-delete\" or \"append\"";
            let mode = self.parsed(&format!("{place} mode"), item, wanted, Mode::parse);
            shape.mode = mode.unwrap_or_default();
        }
        if let Some(item) = table.get("columns") {
            let patterns = self.texts(&format!("{place} columns"), item);
            let patterns: Vec<_> = patterns.into_iter().map(|(_, pattern)| pattern).collect();
            shape.columns = ColumnFilter::new(&patterns);
        }
        if let Some(item) = table.get("rename") {
            let key = format!("{place} rename");
            let Some(names) = self.inner(&key, item, "{ old = \"new\" }") else { return shape };
            for (old, new) in names {
                let new = self.text(&format!("{key}.{}", old.get_ref()), new);
                shape.rename.extend(new.map(|new| (old.get_ref().to_string(), new)));
            }
        }
        if let Some(item) = table.get("mask") {
            let key = format!("{place} mask");
            let Some(masks) = self.inner(&key, item, "{ email = \"hash\" }") else { return shape };
            for (column, mask) in masks {
                let name = column.get_ref().to_string();
                let mask = self.mask(&format!("{key}.{name}"), mask);
                // A mask that isn't understood is a fault: the file is refused.
                shape.masks.extend(mask.map(|mask| (name, mask)));
            }
        }
        if let Some(item) = table.get("rows") {
            let key = format!("{place} rows");
            if let Some(text) = self.text(&key, item) {
                match Filter::parse(&text) {
                    Ok(filter) => shape.rows = Some(filter),
                    Err(why) => self.fault(item.span().start, format!("{key}: {why}")),
                }
            }
        }
        if let Some(item) = table.get("partition_by") {
            let key = format!("{place} partition_by");
            for (at, text) in self.texts(&key, item) {
                match PartitionBy::parse(&text) {
                    Some(by) => shape.partition.push(by),
                    None => self.fault(
                        at,
                        format!("{key}: '{text}' is no column, year(…), month(…) or day(…) of one"),
                    ),
                }
            }
        }
        shape
    }

    pub(super) fn inner<'a, 'd>(
        &mut self,
        place: &str,
        item: Item<'a, 'd>,
        example: &str,
    ) -> Option<&'a DeTable<'d>> {
        let table = item.get_ref().as_table();
        if table.is_none() {
            self.fault(item.span().start, format!("{place}: write it as {example}"));
        }
        table
    }

    fn mask(&mut self, place: &str, item: Item<'_, '_>) -> Option<Mask> {
        let wanted = "\"hash\", \"drop\" or { constant = \"…\" }";
        let at = item.span().start;
        if let Some(table) = item.get_ref().as_table() {
            self.only(place, table, &["constant"]);
            let text = table.get("constant").and_then(|item| self.text(place, item));
            if text.is_none() {
                self.fault(at, format!("{place} is {wanted}"));
            }
            return text.map(Mask::Constant);
        }
        match item.get_ref().as_str() {
            Some("drop") => Some(Mask::Drop),
            Some("hash") => {
                let key = self.mask_key.clone();
                if key.is_none() {
                    let message = format!(
                        "{place}: a hash needs a key, or anybody could try values; write mask_key \
                         = \"${{MASK_KEY}}\" in [lake]"
                    );
                    self.fault(at, message);
                }
                key.map(Mask::Hash)
            }
            _ => {
                self.fault(at, format!("{place} is {wanted}"));
                None
            }
        }
    }

    /// `mask_key` of `[lake]`.
    pub(super) fn read_mask_key(&mut self, lake: &DeTable<'_>) {
        let Some(item) = lake.get("mask_key") else { return };
        let Some(secret) = self.secret("lake.mask_key", item) else { return };
        match secret.reveal().len() >= 16 {
            true => self.mask_key = Some(MaskKey::new(&secret)),
            false => self.fault(
                item.span().start,
                "lake.mask_key is too short to keep anything secret; give it at least 16 bytes",
            ),
        }
    }
}
