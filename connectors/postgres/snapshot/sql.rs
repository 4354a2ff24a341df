//! The statements that read rows. Names and keys are quoted here and nowhere else.

use crate::postgres::catalog::{Access, quoted};
use crate::schema::TableSchema;
use crate::source::{KeyText, Range};

/// Writes statements that read one table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Select<'a> {
    pub schema: &'a TableSchema,
    pub access: &'a Access,
}

impl Select<'_> {
    /// The first `limit` rows of `range`.
    pub(super) fn next(&self, range: &Range, limit: u64) -> String {
        let key = self.key_columns();
        let bound = |sign: &str, bound: &Option<KeyText>| {
            bound.as_ref().map(|bound| format!("({key}) {sign} {}", self.key_literals(bound)))
        };
        let conditions = [bound(">", &range.after), bound("<=", &range.until)];
        let conditions = conditions.into_iter().flatten().collect();
        self.copy(conditions, &format!(" order by {key} limit {limit}"))
    }

    /// The rows of `keys`.
    pub(super) fn keys(&self, keys: &[KeyText]) -> String {
        let keys: Vec<_> = keys.iter().map(|key| self.key_literals(key)).collect();
        self.copy(vec![format!("({}) in ({})", self.key_columns(), keys.join(", "))], "")
    }

    /// All rows.
    pub(super) fn all(&self) -> String {
        self.copy(Vec::new(), "")
    }

    /// The least and the greatest key of a table whose key is one column.
    pub(super) fn ends(&self) -> String {
        let (key, from) = (self.key_columns(), &self.access.from);
        format!("select min({key})::text, max({key})::text from {from}")
    }

    /// At most `parts - 1` keys, ascending, which part a sample of about `percent` % of the pages
    /// evenly. The key's columns come in the schema's order, as text.
    pub(super) fn sample(&self, parts: usize, percent: f64) -> String {
        let (key, from) = (self.key_columns(), &self.access.from);
        let parts_of_key = self.schema.key().iter().enumerate();
        let texts: Vec<_> = parts_of_key
            .map(|(part, &at)| format!("{}::text as k{part}", self.column(at)))
            .collect();
        let names: Vec<_> = (0..texts.len()).map(|part| format!("k{part}")).collect();
        let (texts, names) = (texts.join(", "), names.join(", "));
        format!(
            "select {names} from (
               select {texts}, row_number() over w as place, count(*) over () as places
               from {from} tablesample system ({percent}) window w as (order by {key})) sampled
             where place < places and (place * {parts} / places) <> ((place - 1) * {parts} / places)
             order by place"
        )
    }

    fn copy(&self, mut conditions: Vec<String>, tail: &str) -> String {
        conditions.extend(self.access.filter.iter().map(|filter| format!("({filter})")));
        let forms = self.access.forms.iter().enumerate();
        let columns = forms.map(|(at, form)| form.select(&self.column(at)));
        let columns = columns.collect::<Vec<_>>().join(", ");
        let filter = match conditions.is_empty() {
            true => String::new(),
            false => format!(" where {}", conditions.join(" and ")),
        };
        let from = &self.access.from;
        format!("copy (select {columns} from {from}{filter}{tail}) to stdout (format binary)")
    }

    fn column(&self, at: usize) -> String {
        quoted(self.schema.columns.get(at).map_or("", |column| &column.name))
    }

    /// The key's columns in the order of its index, so that the index serves.
    fn key_columns(&self) -> String {
        let key = self.schema.key();
        let columns = self.access.order.iter().filter_map(|&part| key.get(part));
        columns.map(|&at| self.column(at)).collect::<Vec<_>>().join(", ")
    }

    /// The same of a key's values, each cast to its column's type.
    fn key_literals(&self, key: &KeyText) -> String {
        let parts = self.access.order.iter().filter_map(|&part| {
            Some(format!("{}::{}", literal(key.get(part)?), self.access.casts.get(part)?))
        });
        format!("({})", parts.collect::<Vec<_>>().join(", "))
    }
}

/// A string constant that reads the same whatever `standard_conforming_strings` says.
pub(super) fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::binary::Form;
    use crate::schema::{Column, Compare, Identity, TableId, Type};

    #[test]
    fn keys_follow_their_index_and_are_quoted() {
        let column = |id, name: &str| Column {
            id,
            name: name.to_owned(),
            kind: Type::Text,
            source_type: "25/-1".to_owned(),
            missing: None,
            compare: Compare::EXACT,
        };
        let schema = TableSchema {
            id: TableId::new("s", "t"),
            columns: vec![column(1, "a"), column(2, "v"), column(3, "b\"c")],
            identity: Identity::Key(vec![0, 2]),
            storage: String::new(),
            lasting_ids: false,
        };
        let access = Access {
            from: r#"only "s"."t""#.to_owned(),
            filter: Some("v > 1".to_owned()),
            order: vec![1, 0],
            casts: vec!["pg_catalog.int4".to_owned(), "pg_catalog.text".to_owned()],
            forms: vec![Form::Text, Form::Printed, Form::Text],
            pages: 1,
        };
        let select = Select { schema: &schema, access: &access };
        let key = vec!["5".to_owned(), r"it's\".to_owned()];
        let range = Range { after: Some(key.clone()), until: None };
        assert_eq!(
            select.next(&range, 10),
            r#"copy (select "a", case when pg_catalog.num_nulls("v") = 0 then pg_catalog.concat("v") end, "b""c" from only "s"."t" where ("b""c", "a") > (E'it''s\\'::pg_catalog.text, E'5'::pg_catalog.int4) and (v > 1) order by "b""c", "a" limit 10) to stdout (format binary)"#
        );
        assert_eq!(
            select.keys(&[key]),
            r#"copy (select "a", case when pg_catalog.num_nulls("v") = 0 then pg_catalog.concat("v") end, "b""c" from only "s"."t" where ("b""c", "a") in ((E'it''s\\'::pg_catalog.text, E'5'::pg_catalog.int4)) and (v > 1)) to stdout (format binary)"#
        );
    }
}
