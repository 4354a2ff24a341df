//! The statements that read the catalog, and what they return.

use std::collections::HashMap;

use serde::Deserialize;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Json;
use tokio_postgres::{Client, Row};

use crate::error::{Error, Result};
use crate::postgres::storage::{Leaf, Storage};
use crate::postgres::types::{PgType, Types};
use crate::schema::TableId;

/// A table of `pg_class`, with all that hangs on it.
#[derive(Debug, Deserialize)]
pub(super) struct TableRow {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    /// `r` ordinary, `p` partitioned.
    pub kind: char,
    /// `p` permanent, `u` unlogged, `t` temporary.
    pub persistence: char,
    pub partition: bool,
    pub replica_identity: char,
    pub file: u32,
    pub toast: u32,
    pub attributes: i16,
    pub rows: f64,
    pub pages: u64,
    pub usable: bool,
    pub row_security: bool,
    pub columns: Vec<ColumnRow>,
    pub indexes: Vec<IndexRow>,
    pub leaves: Vec<LeafRow>,
    pub labels: Vec<(u32, String)>,
    /// The publication's column list (`attnum`s), where it has one.
    pub list: Option<Vec<u32>>,
    pub filter: Option<String>,
    /// The publication carries stored generated columns.
    pub generated: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct ColumnRow {
    pub id: u32,
    pub name: String,
    pub type_oid: u32,
    pub typmod: i32,
    /// The type in SQL.
    pub cast: String,
    /// `s` stored, `v` virtual.
    pub generated: Option<char>,
    pub missing: Option<String>,
    pub readable: bool,
    pub deterministic: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct IndexRow {
    pub primary: bool,
    pub identity: bool,
    pub immediate: bool,
    pub columns: Vec<u32>,
    pub names: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct LeafRow {
    pub oid: u32,
    pub name: String,
    pub kind: char,
    pub persistence: char,
    pub replica_identity: char,
    /// The columns of its replica identity's index.
    pub identity: Option<Vec<String>>,
    pub file: u32,
    pub logged: bool,
}

impl TableRow {
    /// Whether the log carries `column`.
    pub(super) fn publishes(&self, column: &ColumnRow) -> bool {
        match (&self.list, column.generated) {
            (_, Some('v')) => false,
            (Some(list), _) => list.contains(&column.id),
            (None, None) => true,
            (None, Some(_)) => self.generated,
        }
    }

    pub(super) fn storage(&self, columns: &[&ColumnRow]) -> Storage {
        let generated = columns.iter().filter(|column| column.generated.is_some());
        let published = [
            self.list.as_ref().map_or("*".to_owned(), |list| join(list.iter())),
            format!("g{}", join(generated.map(|column| &column.id))),
            self.filter.as_deref().map_or(String::new(), digest),
        ];
        let leaf = |leaf: &LeafRow| Leaf { oid: leaf.oid, file: leaf.file, logged: leaf.logged };
        let label = |(oid, label): &(u32, String)| (*oid, digest(label));
        Storage {
            oid: self.oid,
            file: self.file,
            toast: self.toast,
            columns: self.attributes,
            published: published.join(" "),
            leaves: self.leaves.iter().map(leaf).collect(),
            labels: self.labels.iter().map(label).collect(),
        }
    }
}

fn join<'a>(numbers: impl Iterator<Item = &'a u32>) -> String {
    numbers.map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// FNV-1a, 64 bits: the same text gives the same digest in every version of this program.
fn digest(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// All tables that could be kept, by object id.
pub(super) async fn names(client: &Client) -> Result<Vec<(u32, TableId)>> {
    let sql = "select c.oid, n.nspname, c.relname
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where c.relkind in ('r', 'p') and not c.relispartition and c.relpersistence <> 't'
          and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'";
    let rows = client.query(sql, &[]).await.map_err(|error| fault(error, "list tables"))?;
    let table = |row: &Row| {
        let (schema, name): (String, String) = (row.try_get(1)?, row.try_get(2)?);
        Ok((row.try_get(0)?, TableId { schema, name }))
    };
    rows.iter().map(table).collect::<Result<_, _>>().map_err(|error| fault(error, "list tables"))
}

/// The tables of `oids`, as far as they exist.
pub(super) async fn tables(
    client: &Client,
    oids: &[u32],
    publication: Option<&str>,
) -> Result<Vec<TableRow>> {
    let doing = |error| fault(error, "describe tables");
    let version = client.query_one("select current_setting('server_version_num')::int4", &[]);
    let version: i32 = version.await.and_then(|row| row.try_get(0)).map_err(doing)?;
    let sql = TABLES.replace("/* publication */", &publication_sql(version));
    let rows = client.query(&sql, &[&oids, &publication.unwrap_or("")]).await.map_err(doing)?;
    let table = |row: &Row| row.try_get(0).map(|Json(table)| table);
    rows.iter().map(table).collect::<Result<_, _>>().map_err(doing)
}

/// The types of `oids`, and those below domains and inside arrays.
pub(super) async fn types(client: &Client, oids: &[u32]) -> Result<Types> {
    let doing = |error| fault(error, "describe types");
    let rows = client.query(TYPES, &[&oids]).await.map_err(doing)?;
    let mut types = HashMap::new();
    for row in &rows {
        let (oid, kind) = pg_type(row).map_err(doing)?;
        types.insert(oid, kind);
    }
    Ok(types)
}

fn pg_type(row: &Row) -> Result<(u32, PgType), tokio_postgres::Error> {
    let character = |at: usize| row.try_get(at).map(|byte: i8| char::from(byte as u8));
    let (base, typmod): (u32, i32) = (row.try_get(2)?, row.try_get(3)?);
    let kind = PgType {
        class: character(1)?,
        base: (base != 0).then_some((base, typmod)),
        element: row.try_get(4)?,
        delimiter: character(5)?,
    };
    Ok((row.try_get(0)?, kind))
}

const TYPES: &str = "
with recursive parts(oid) as (
    select unnest($1::oid[])
    union
    select x.oid from parts p join pg_type t on t.oid = p.oid
    cross join lateral (values (t.typbasetype), (t.typelem)) x(oid) where x.oid <> 0)
select t.oid, t.typtype, t.typbasetype, t.typtypmod,
    case when e.typarray = t.oid then e.oid end, t.typdelim
from parts p join pg_type t on t.oid = p.oid left join pg_type e on e.oid = t.typelem";

/// Column list, row filter and generated columns: of the publication's entry for the table, unless
/// the publication also has the whole schema.
fn publication_sql(version: i32) -> String {
    if version < 150_000 {
        return "select null::int2vector as prattrs, null::text as filter, false as generated \
                where $2::text <> $2"
            .to_owned();
    }
    let generated = if version < 180_000 { "false" } else { "p.pubgencols = 's'" };
    format!(
        "select r.prattrs, {generated} as generated, case when s.oid is null
           then pg_get_expr(r.prqual, r.prrelid) end as filter
         from pg_publication p
         left join pg_publication_rel r on r.prpubid = p.oid and r.prrelid = c.oid
         left join pg_publication_namespace s on s.pnpubid = p.oid and s.pnnspid = c.relnamespace
         where p.pubname = $2 limit 1"
    )
}

/// Whether a partition was created as one: ATTACH PARTITION writes the catalog row of every column
/// anew, so then no column has a row left that the same command wrote as those of the system
/// columns (attnum < 0), which are never written again.
const TABLES: &str = "
select jsonb_build_object(
  'oid', c.oid::int8, 'schema', n.nspname, 'name', c.relname, 'kind', c.relkind,
  'persistence', c.relpersistence, 'partition', c.relispartition,
  'replica_identity', c.relreplident, 'file', c.relfilenode::int8,
  'toast', c.reltoastrelid::int8, 'attributes', c.relnatts,
  'rows', greatest(c.reltuples, 0) + leaves.rows, 'pages', c.relpages + leaves.pages,
  'usable', coalesce(has_schema_privilege(c.relnamespace, 'usage'), false),
  'row_security', row_security_active(c.oid),
  'columns', columns.list, 'indexes', indexes.list, 'leaves', leaves.list,
  'labels', labels.list,
  'list', case when published.prattrs is not null then to_jsonb(published.prattrs::int2[]) end,
  'filter', published.filter, 'generated', coalesce(published.generated, false))
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
cross join lateral (
  select coalesce(jsonb_agg(jsonb_build_object(
    'id', a.attnum, 'name', a.attname, 'type_oid', a.atttypid::int8, 'typmod', a.atttypmod,
    'cast', format('%I.%I', tn.nspname, t.typname), 'generated', nullif(a.attgenerated::text, ''),
    'missing', case when a.atthasmissing then (a.attmissingval::text::text[])[1] end,
    'readable', coalesce(has_column_privilege(c.oid, a.attnum, 'select'), false),
    'deterministic', coalesce(l.collisdeterministic, true)) order by a.attnum), '[]') as list
  from pg_attribute a
  join pg_type t on t.oid = a.atttypid join pg_namespace tn on tn.oid = t.typnamespace
  left join pg_collation l on l.oid = a.attcollation
  where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) columns
cross join lateral (
  select coalesce(jsonb_agg(jsonb_build_object(
    'primary', i.indisprimary, 'identity', i.indisreplident, 'immediate', i.indimmediate,
    'columns', k.ids, 'names', k.names)), '[]') as list
  from pg_index i cross join lateral (
    select jsonb_agg(k.attnum order by k.place) as ids, jsonb_agg(a.attname order by k.place) as names
    from unnest(i.indkey::int2[]) with ordinality k(attnum, place)
    join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
    where k.place <= i.indnkeyatts) k
  where i.indrelid = c.oid and i.indisvalid and (i.indisprimary or i.indisreplident)) indexes
cross join lateral (
  with recursive tree(oid, born) as (
    select c.oid, true where c.relkind = 'p'
    union all
    select i.inhrelid, tree.born and exists (
        select from pg_attribute s join pg_attribute a on a.attrelid = s.attrelid
        where s.attrelid = i.inhrelid and s.attnum = -1 and a.attnum > 0
          and a.xmin = s.xmin and a.cmin = s.cmin)
    from tree join pg_inherits i on i.inhparent = tree.oid and not i.inhdetachpending)
  select coalesce(sum(greatest(l.reltuples, 0)), 0) as rows, coalesce(sum(l.relpages), 0) as pages,
    coalesce(jsonb_agg(jsonb_build_object(
      'oid', l.oid::int8, 'name', l.oid::regclass::text, 'kind', l.relkind,
      'persistence', l.relpersistence, 'replica_identity', l.relreplident,
      'file', l.relfilenode::int8, 'identity', x.names,
      'logged', case when tree.born then true else coalesce(pg_relation_size(l.oid), 0) = 0 end)
      order by l.oid), '[]') as list
  from tree join pg_class l on l.oid = tree.oid and l.relkind <> 'p'
  left join lateral (
    select jsonb_agg(a.attname order by k.place) as names
    from pg_index i cross join lateral unnest(i.indkey::int2[]) with ordinality k(attnum, place)
    join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
    where i.indrelid = l.oid and i.indisreplident and k.place <= i.indnkeyatts) x on true) leaves
cross join lateral (
  with recursive parts(oid) as (
    select a.atttypid from pg_attribute a
    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.atttypid >= 16384
    union
    select x.oid from parts p join pg_type t on t.oid = p.oid cross join lateral (
      select t.typbasetype union all select t.typelem union all
      select a.atttypid from pg_attribute a
      where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped) x(oid)
    where x.oid >= 16384)
  select coalesce(jsonb_agg(jsonb_build_array(e.oid::int8, e.enumlabel) order by e.oid), '[]') as list
  from parts p join pg_enum e on e.enumtypid = p.oid) labels
left join lateral (/* publication */) published on true
where c.oid = any($1) and c.relkind in ('r', 'p')
order by n.nspname, c.relname";

/// An error of the server or the connection while `doing` something, as the daemon sees it.
pub(in crate::postgres) fn fault(error: tokio_postgres::Error, doing: &str) -> Error {
    let message = format!("can't {doing}");
    match error.code() {
        Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => {
            Error::config(message).caused_by(error)
        }
        // What fails for another reason than a missing right may well succeed when tried again:
        // a server that goes down, a conflict, an object that was dropped while it was looked at.
        _ => Error::unavailable(message).caused_by(error),
    }
}
