//! Lake against source, row by row, as multisets of texts.

use std::collections::HashMap;

use serde_json::Value;

use super::postgres::{Database, Pg, Row, ident, literal};
use super::reader::{self, LakeRows};
use super::{Res, shortened};

/// What the comparison lets pass; by default nothing.
#[derive(Clone, Debug, Default)]
pub struct Allow {
    /// The lake may hold columns that the source no longer has (dropped or renamed ones).
    pub extra_columns: bool,
    /// Columns the lake may lack.
    pub missing_columns: Vec<String>,
}

/// A table of the source with the rows it has now.
pub struct SourceTable {
    pub columns: Vec<String>,
    pub rows: Vec<Row>,
}

pub fn qualified(schema: &str, table: &str) -> String {
    format!("{}.{}", ident(schema), ident(table))
}

/// A key for the columns of a table in the catalog.
fn columns_of(pg: &Pg, schema: &str, table: &str) -> Res<Vec<String>> {
    let sql = format!(
        "select attname from pg_attribute where attrelid = {}::regclass \
         and attnum > 0 and not attisdropped order by attnum",
        literal(&qualified(schema, table))
    );
    Ok(pg.rows(&sql)?.into_iter().flatten().flatten().collect())
}

fn list(columns: &[String], cast: &str) -> String {
    let list: Vec<String> = columns.iter().map(|c| format!("{}{cast}", ident(c))).collect();
    list.join(", ")
}

pub fn source_rows(pg: &Pg, schema: &str, table: &str) -> Res<SourceTable> {
    let columns = columns_of(pg, schema, table)?;
    let from = qualified(schema, table);
    let rows = pg.rows(&format!("select {} from {from}", list(&columns, "")))?;
    Ok(SourceTable { columns, rows })
}

/// Whether the table of the lake at `url` equals the table of the source.
pub fn equal(pg: &Pg, schema: &str, table: &str, url: &str, allow: &Allow) -> Res<()> {
    let source = source_rows(pg, schema, table)?;
    let lake = reader::read(url)?.ok_or(format!("{schema}.{table}: not in the lake"))?;
    equal_rows(&source, lake, allow).map_err(|e| format!("{schema}.{table}: {e}"))
}

pub fn equal_rows(source: &SourceTable, lake: LakeRows, allow: &Allow) -> Res<()> {
    let types = lake.columns.iter().zip(&lake.types).map(|(c, t)| format!("{c} {t}"));
    let types: Vec<String> = types.collect();
    let note = lake.note.as_deref().map(|n| format!("; {n}")).unwrap_or_default();
    let by = format!("\n  (read by {}: {}{note})", lake.engine, types.join(", "));
    let (columns, lake) = projected(source, lake, allow)?;
    let source = pick(&source.columns, &source.rows, &columns);
    difference(&source, &lake).map_or(Ok(()), |text| Err(text + &by))
}

/// Rows of the lake that the source doesn't have: for a table that stopped, none may be.
pub fn within(source: &SourceTable, lake: LakeRows, allow: &Allow) -> Res<()> {
    let (columns, lake) = projected(source, lake, allow)?;
    let mut left = counted(&pick(&source.columns, &source.rows, &columns));
    for row in &lake {
        let count = left.entry(row.clone()).or_default();
        *count -= 1;
        if *count < 0 {
            return Err(format!("the lake has a row that the source doesn't: {}", shown(row)));
        }
    }
    Ok(())
}

/// The columns to compare and the lake's rows in their order.
fn projected(source: &SourceTable, lake: LakeRows, allow: &Allow) -> Res<(Vec<String>, Vec<Row>)> {
    let mut columns = Vec::new();
    for column in &source.columns {
        if lake.columns.contains(column) {
            columns.push(column.clone());
        } else if !allow.missing_columns.contains(column) {
            return Err(format!("the lake lacks the column {column:?}: {:?}", lake.columns));
        }
    }
    let extra: Vec<_> = lake.columns.iter().filter(|c| !source.columns.contains(c)).collect();
    if !extra.is_empty() && !allow.extra_columns {
        return Err(format!("the lake has columns the source doesn't: {extra:?}"));
    }
    let rows = pick(&lake.columns, &lake.rows, &columns);
    Ok((columns, rows))
}

fn pick(have: &[String], rows: &[Row], want: &[String]) -> Vec<Row> {
    let places: Vec<usize> = want.iter().filter_map(|w| have.iter().position(|h| h == w)).collect();
    rows.iter().map(|row| places.iter().map(|&p| row[p].clone()).collect()).collect()
}

fn counted(rows: &[Row]) -> HashMap<Row, i64> {
    let mut counts = HashMap::with_capacity(rows.len());
    for row in rows {
        *counts.entry(row.clone()).or_default() += 1;
    }
    counts
}

/// How two multisets of rows differ, in words; the first five of each kind.
pub fn difference(source: &[Row], lake: &[Row]) -> Option<String> {
    let mut left = counted(source);
    for row in lake {
        *left.entry(row.clone()).or_default() -= 1;
    }
    left.retain(|_, n| *n != 0);
    if left.is_empty() {
        return None;
    }
    let total = |sign: i64| -> i64 { left.values().map(|n| (n * sign).max(0)).sum() };
    let mut rows: Vec<(&Row, i64)> = left.iter().map(|(r, n)| (r, *n)).collect();
    rows.sort();
    let some = |sign: i64| -> String {
        let rows = rows.iter().filter(|(_, n)| n * sign > 0).take(5);
        rows.map(|(row, n)| format!("\n    {}× {}", n * sign, shown(row))).collect()
    };
    Some(format!(
        "source has {} rows, lake {}; {} missing in the lake{}; {} too many in the lake{}",
        source.len(),
        lake.len(),
        total(1),
        some(1),
        total(-1),
        some(-1)
    ))
}

fn shown(row: &Row) -> String {
    let values = row.iter().map(|v| v.as_ref().map_or("NULL".to_owned(), |v| shortened(v, 60)));
    values.collect::<Vec<_>>().join(" | ")
}

/// Whether the source has the rows that were recorded for the case: the script then did here
/// what it did there.
pub fn recorded(db: &Database, schema: &str, table: &str, expected: &Value) -> Res<()> {
    let pg = Pg::connect(&db.url)?;
    let from = qualified(schema, table);
    if let Some(md5) = expected["md5_of_sorted_record_text"].as_str() {
        let sql = format!(
            "select count(*)::text || ' ' || md5(string_agg(x::text, E'\\n' order by x::text)) \
             from (select * from {from}) x"
        );
        let want = format!("{} {md5}", expected["row_count"]);
        let have = pg.text(&sql)?.unwrap_or_default();
        return same(&want, &have, table);
    }
    let columns = columns_of(&pg, schema, table)?;
    let rows = expected["rows"].as_array().ok_or(format!("{table}: no rows recorded"))?;
    let mut want: Vec<String> = rows.iter().map(Value::to_string).collect();
    let mut have = recorded_form(&pg, &columns, &from)?;
    want.sort();
    have.sort();
    same(&want.join("\n"), &have.join("\n"), table)
}

fn same(want: &str, have: &str, table: &str) -> Res<()> {
    if want == have {
        return Ok(());
    }
    Err(format!("{table}: the source differs from the recorded rows:\n{have}\nrecorded:\n{want}"))
}

/// Rows as the recorder wrote them: `::text`, long values as length and md5.
fn recorded_form(pg: &Pg, columns: &[String], from: &str) -> Res<Vec<String>> {
    let texts = columns.iter().map(|c| {
        let c = ident(c);
        format!(
            "case when length({c}::text) > 300 then json_build_object('$len', length({c}::text), \
             '$md5', md5({c}::text)) else to_json({c}::text) end"
        )
    });
    let texts: Vec<String> = texts.collect();
    let rows =
        pg.rows(&format!("select json_build_array({})::text from {from}", texts.join(", ")))?;
    let parse = |text: String| serde_json::from_str::<Value>(&text).map(|v| v.to_string());
    rows.into_iter().flatten().flatten().map(|t| parse(t).map_err(|e| e.to_string())).collect()
}
