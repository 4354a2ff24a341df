use super::*;

fn column(place: u32, name: &str, kind: &str, missing: bool) -> Column {
    Column {
        id: place,
        name: name.to_owned(),
        kind: Kind::parse(kind).unwrap().lake_type(),
        source_type: kind.to_owned(),
        missing: missing.then(String::new),
        compare: Compare::EXACT,
    }
}

fn table(columns: Vec<Column>) -> TableSchema {
    TableSchema {
        id: TableId::new("s", "t"),
        columns,
        identity: Identity::Key(vec![0]),
        storage: "engine=innodb".to_owned(),
        lasting_ids: false,
    }
}

fn look(schema: TableSchema) -> Look {
    Look::Kept(Box::new(Table {
        schema: Arc::new(schema),
        rows: 0,
        row_bytes: 0,
        index: "PRIMARY".to_owned(),
        order: vec![0],
    }))
}

fn two() -> TableSchema {
    table(vec![column(1, "id", "int", true), column(2, "v", "varchar(9)", false)])
}

fn three(kind: &str, missing: bool) -> TableSchema {
    let mut schema = two();
    schema.columns.push(column(3, "n", kind, missing));
    schema
}

/// Whether the change is followed in place.
fn followed(before: &TableSchema, actions: &[Action], now: TableSchema) -> bool {
    let resolved = altered(&before.id, Some(before), actions, look(now.clone()));
    match resolved {
        Resolved::Schema(schema) => *schema == now,
        Resolved::Lost(..) | Resolved::Dropped { .. } => false,
    }
}

#[test]
fn a_change_is_followed_where_statement_and_catalog_say_the_same() {
    let add = [Action::AddNull("n".to_owned()), Action::Harmless];
    assert!(followed(&two(), &add, three("int", false)));
    assert!(followed(&two(), &[Action::Harmless], two()));
    assert!(followed(&three("int", false), &[Action::Drop("n".to_owned())], two()));
    // The catalog is further on, or the column is filled by now.
    assert!(!followed(&two(), &add, two()));
    assert!(!followed(&two(), &add, three("int", true)));
    assert!(!followed(&two(), &[Action::Harmless], three("int", false)));
    assert!(!followed(&two(), &[Action::Other], two()));
}

#[test]
fn a_column_that_went_and_came_is_another() {
    let both = [Action::Drop("v".to_owned()), Action::AddNull("v".to_owned())];
    assert!(!followed(&two(), &both, two()));
    let add = [Action::AddNull("V".to_owned())];
    assert!(!followed(&two(), &add, three("int", false)));
}

#[test]
fn another_key_is_another_table() {
    let mut now = two();
    now.identity = Identity::Key(vec![1]);
    assert!(!followed(&two(), &[Action::Harmless], now));
    let id = two().id;
    assert!(matches!(altered(&id, Some(&two()), &[], Look::Gone), Resolved::Lost(..)));
    assert!(matches!(altered(&id, None, &[], look(two())), Resolved::Lost(..)));
}

fn row(name: &str, kind: &str, collation: Option<&str>) -> ColumnRow {
    ColumnRow {
        name: name.to_owned(),
        place: 1,
        column_type: kind.to_owned(),
        collation: collation.map(str::to_owned),
        nullable: false,
        default: None,
        extra: String::new(),
        expression: String::new(),
    }
}

fn draft<'a>(
    columns: Vec<ColumnRow>,
    indexes: &[(&str, &[Option<&str>])],
    padding: &'a HashMap<String, bool>,
) -> Draft<'a> {
    let index = |(name, parts): &(&str, &[Option<&str>])| IndexRow {
        name: (*name).to_owned(),
        parts: parts.iter().map(|part| part.map(str::to_owned)).collect(),
    };
    let table = TableRow {
        id: TableId::new("s", "t"),
        kind: "BASE TABLE".to_owned(),
        engine: "InnoDB".to_owned(),
        rows: 1,
        row_bytes: 1,
    };
    Draft { table, columns, indexes: indexes.iter().map(index).collect(), padding }
}

fn identity(
    columns: Vec<ColumnRow>,
    indexes: &[(&str, &[Option<&str>])],
) -> (Identity, Vec<usize>) {
    let padding = HashMap::new();
    match draft(columns, indexes, &padding).look(&[], &[]) {
        Look::Kept(table) => (table.schema.identity.clone(), table.order),
        other => panic!("{other:?}"),
    }
}

#[test]
fn rows_are_told_apart_by_a_key_that_can_be_followed() {
    let columns = || {
        vec![
            row("a", "int", None),
            row("f", "float", None),
            row("c", "varchar(9)", Some("utf8mb4_czech_ci")),
            row("b", "varchar(9)", Some("utf8mb4_bin")),
        ]
    };
    let key = |indexes| identity(columns(), indexes);
    assert_eq!(
        key(&[("PRIMARY", &[Some("b"), Some("a")])]),
        (Identity::Key(vec![0, 3]), vec![1, 0])
    );
    let second: &[(&str, &[Option<&str>])] = &[("PRIMARY", &[Some("f")]), ("u", &[Some("a")])];
    assert_eq!(key(second), (Identity::Key(vec![0]), vec![0]));
    assert_eq!(key(&[("PRIMARY", &[Some("c")])]).0, Identity::FullRow);
    assert_eq!(key(&[("u", &[Some("a"), None])]).0, Identity::FullRow);
    assert_eq!(key(&[]).0, Identity::FullRow);
}

#[test]
fn what_cannot_be_kept_says_why() {
    let padding = HashMap::new();
    let refused =
        |draft: Draft<'_>, texts: &[String], unknown: &[String]| match draft.look(texts, unknown) {
            Look::Refused(reason) => reason,
            other => panic!("{other:?}"),
        };
    let of = |column: ColumnRow| draft(vec![column], &[], &padding);
    let mut versioned = of(row("a", "int", None));
    versioned.table.kind = "SYSTEM VERSIONED".to_owned();
    assert!(refused(versioned, &[], &[]).contains("DROP SYSTEM VERSIONING"));
    let mut memory = of(row("a", "int", None));
    memory.table.engine = "MEMORY".to_owned();
    assert!(refused(memory, &[], &[]).contains("ENGINE = InnoDB"));
    assert!(refused(of(row("h", "hologram(3)", None)), &[], &[]).contains("hologram(3)"));
    let ujis = of(row("j", "text", Some("ujis_japanese_ci")));
    assert!(refused(ujis, &[], &["ujis".to_owned()]).contains("character set ujis"));
    let text = refused(of(row("b", "blob", None)), &["b".to_owned()], &[]);
    assert!(text.contains("take it out of text_columns"), "{text}");
    assert!(refused(draft(Vec::new(), &[], &padding), &[], &[]).contains("GRANT SELECT"));
}
