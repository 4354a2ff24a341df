//! Tables of the lake that differ from the source's as their configuration says. What they must
//! show is asked of the source itself: by a query, or by what triggers have kept.

use crate::support::compare::{Allow, SourceTable, equal_rows};
use crate::support::jobs::Job;
use crate::support::reader;
use crate::support::scene::{Scene, Test, check, has, has_not, trials};
use crate::support::{Context, Res, Server, Store};

const TESTS: &[Test] = &[
    ("columns", columns),
    ("rows", rows),
    ("soft_delete", soft_delete),
    ("append", append),
    ("partitioned", partitioned),
    ("changed_shape", changed_shape),
    ("refused_shape", refused_shape),
    ("renamed_in_place", renamed_in_place),
    ("columns_by_policy", columns_by_policy),
];

pub fn jobs(select: &dyn Fn(&str) -> bool) -> Vec<Job> {
    trials("behavior::shapes", TESTS, &[Server::Pg18], select)
}

const MASK_KEY: &str = "a key for masks that is long enough";

/// The table of the lake shows what `query` says, in the columns `names`.
fn shows(scene: &Scene, table: &str, names: &[&str], query: &str) -> Res<()> {
    let columns = names.iter().map(|name| (*name).to_owned()).collect();
    let source = SourceTable { columns, rows: scene.pg.rows(query)? };
    let lake = reader::read(&scene.url(table))?.ok_or(format!("{table}: not in the lake"))?;
    let allow = Allow { extra_columns: true, ..Allow::default() };
    equal_rows(&source, lake, &allow).map_err(|e| format!("{table}: {e}\n{}", scene.setup.tail()))
}

/// HMAC-SHA-256 of a text in Postgres' words (RFC 2104).
fn hmac(text: &str) -> String {
    let pad = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(MASK_KEY.bytes()).for_each(|(byte, key)| *byte ^= key);
        block.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let inner = format!("sha256('\\x{}'::bytea || convert_to({text}, 'UTF8'))", pad(0x36));
    format!("encode(sha256('\\x{}'::bytea || {inner}), 'hex')", pad(0x5c))
}

const PEOPLE: &str = "create table people(id int primary key, email text, phone text, \
    region text, born date, at timestamptz, big text); \
    alter table people alter big set storage external; \
    insert into people select g, 'p' || g || '@x', '0' || g, \
        case g % 3 when 0 then 'eu' when 1 then 'us' end, date '1980-01-01' + g, \
        timestamptz '2024-01-15 00:00+00' + g * interval '9 hours', repeat('b' || g, 3000) \
    from generate_series(1, 300) g";

fn change(scene: &Scene, n: i32) -> Res<()> {
    scene.pg.exec(&format!("update people set phone = phone || {n} where id % 10 = {n}"))?;
    scene.pg.exec(&format!("update people set region = 'us' where id % 20 = {n}"))?;
    scene.pg.exec(&format!("update people set region = 'eu' where id % 20 = {n} + 10"))?;
    scene.pg.exec(&format!("delete from people where id % 50 = {n}"))?;
    scene.pg.exec(&format!("update people set id = -id where id % 30 = {n}"))?;
    scene.pg.exec(&format!(
        "insert into people values ({}, null, 'x', 'eu', null, now(), 'new') on conflict do nothing",
        1000 + n
    ))
}

/// Snapshot, changes while it is down, changes while it follows.
fn live(scene: &Scene, looks: &dyn Fn(&Scene) -> Res<()>) -> Res<()> {
    scene.run_until_current()?;
    looks(scene)?;
    for n in 0..3 {
        change(scene, n)?;
        scene.run_until_current()?;
        looks(scene)?;
    }
    Ok(())
}

fn scene(server: Server, label: &str, settings: &str) -> Res<Scene> {
    let mut scene = Scene::with(server, Store::Local, label, PEOPLE, &[("people", settings)])?;
    scene.setup.mask_key = Some(MASK_KEY.to_owned());
    scene.setup.write_config()?;
    Ok(scene)
}

fn columns(server: Server) -> Res<()> {
    let settings = "columns = [\"!born\"]\nrename = { region = \"area\" }\n\
        mask = { email = \"hash\", phone = \"drop\", big = { constant = \"***\" } }";
    let scene = scene(server, "columns", settings)?;
    let query = format!(
        "select id, {}, null::text, region, at, case when big is not null then '***' end \
         from people",
        hmac("email")
    );
    let names = ["id", "email", "phone", "area", "at", "big"];
    live(&scene, &|scene| shows(scene, "people", &names, &query))?;
    let schema = reader::read(&scene.url("people"))?.ok_or("no table")?.columns;
    check(schema == names, || format!("{schema:?}"))?;
    for entry in std::fs::read_dir(scene.url("people")).context("the table's folder")? {
        let path = entry.context("the table's folder")?.path();
        if path.extension().is_some_and(|end| end == "parquet") {
            let bytes = std::fs::read(&path).context(path.display())?;
            let held = bytes.windows(5).any(|window| window == b"p99@x");
            check(!held, || format!("{} holds a value that is masked", path.display()))?;
        }
    }
    has_not(&scene.setup.log_text()?, MASK_KEY)
}

fn rows(server: Server) -> Res<()> {
    let settings = "rows = \"region = 'eu' and id <= 1001 and big is not null\"";
    let scene = scene(server, "rows", settings)?;
    let query = "select id, email, region, big from people \
        where region = 'eu' and id <= 1001 and big is not null";
    live(&scene, &|scene| shows(scene, "people", &["id", "email", "region", "big"], query))
}

/// Keeps what the rows were that are deleted.
const GRAVES: &str = "create table graves(like people); \
    alter table graves add primary key (id); \
    create function bury() returns trigger language plpgsql as $$ begin \
        if tg_op <> 'INSERT' and (tg_op = 'DELETE' or old.id <> new.id) then \
            delete from graves where id = old.id; insert into graves select old.*; end if; \
        if tg_op <> 'DELETE' then delete from graves where id = new.id; end if; \
        return null; end $$; \
    create trigger bury after insert or update or delete on people \
        for each row execute function bury(); \
    create function bury_all() returns trigger language plpgsql as $$ begin \
        delete from graves where id in (select id from people); \
        insert into graves select * from people; return null; end $$; \
    create trigger bury_all before truncate on people execute function bury_all()";

fn soft_delete(server: Server) -> Res<()> {
    let mut scene = scene(server, "soft", "mode = \"soft-delete\"")?;
    scene.setup.sources[0].tables = vec!["public.people".to_owned()];
    scene.setup.write_config()?;
    scene.pg.exec(GRAVES)?;
    let query = "select id, email, phone, region, born, at, big, false from people union all \
        select id, email, phone, region, born, at, big, true from graves";
    let names = ["id", "email", "phone", "region", "born", "at", "big", "_deleted"];
    let looks = |scene: &Scene| shows(scene, "people", &names, query);
    live(&scene, &looks)?;
    // Read again: what was deleted stays, and what is deleted meanwhile is found missing.
    scene.db.drop_slot(&scene.setup.sources[0].slot())?;
    scene.pg.exec("delete from people where id % 7 = 0")?;
    scene.run_until_current()?;
    looks(&scene)?;
    scene.pg.exec("truncate people; insert into people(id, email) values (5, 'again')")?;
    scene.run_until_current()?;
    looks(&scene)
}

fn append(server: Server) -> Res<()> {
    let mut scene = scene(server, "append", "mode = \"append\"\ncolumns = [\"!born\"]")?;
    scene.setup.sources[0].tables = vec!["public.people".to_owned()];
    scene.setup.write_config()?;
    scene.pg.exec(
        "create table changes(op text, id int, phone text, region text); \
         insert into changes select 'read', id, phone, region from people; \
         create function note() returns trigger language plpgsql as $$ begin \
             insert into changes select lower(tg_op), coalesce(new.id, old.id), \
                 new.phone, new.region; return null; end $$; \
         create trigger note after insert or update or delete on people \
             for each row execute function note()",
    )?;
    let names = ["_op", "id", "phone", "region"];
    let query = "select op, id, phone, region from changes";
    live(&scene, &|scene| shows(scene, "people", &names, query))?;
    scene.pg.exec("truncate people; insert into changes values ('truncate', null, null, null)")?;
    scene.run_until_current()?;
    shows(&scene, "people", &names, query)?;
    let lake = reader::read(&scene.url("people"))?.ok_or("no table")?;
    let place = |name: &str| lake.columns.iter().position(|column| column == name);
    let (Some(op), Some(position), Some(left_out), Some(old_key)) =
        (place("_op"), place("_position"), place("_unchanged"), place("_old_key"))
    else {
        return Err(format!("columns are missing: {:?}", lake.columns));
    };
    let of = |row: &[Option<String>], at: usize| row[at].clone().unwrap_or_default();
    let read = |row: &&Vec<Option<String>>| of(row, op) == "read";
    check(lake.rows.iter().filter(read).all(|row| row[position].is_none()), || "read".into())?;
    let stream = lake.rows.iter().filter(|row| !read(row));
    check(stream.clone().all(|row| row[position].is_some()), || "a change has no place".into())?;
    // The long value was not sent with updates of others.
    let updates = stream.filter(|row| of(row, op) == "update");
    check(updates.clone().any(|row| of(row, left_out) == "{big}"), || "_unchanged".into())?;
    check(updates.clone().any(|row| of(row, old_key) == "{30}"), || "_old_key".into())
}

fn partitioned(server: Server) -> Res<()> {
    let settings = "partition_by = [\"month(at)\", \"born\"]\nrename = { at = \"seen\" }";
    let mut scene = scene(server, "parts", settings)?;
    scene.pg.exec("update people set born = date '1980-01-01' + (id % 2)")?;
    let query = "select id, email, born, at, big, \
        date_trunc('month', at at time zone 'UTC')::date from people";
    let names = ["id", "email", "born", "seen", "big", "seen_month"];
    for merge in ["", "\nmerge = \"deletion-vectors\"", ""] {
        scene.setup.sources[0].settings[0].1 = format!("{settings}{merge}");
        scene.setup.write_config()?;
        live(&scene, &|scene| shows(scene, "people", &names, query))?;
    }
    let log = scene.setup.lake.log(&scene.source, "public", "people")?;
    let adds = log.iter().flat_map(|(_, actions)| actions).filter_map(|a| a.get("add"));
    let months = adds.filter_map(|add| add["partitionValues"]["seen_month"].as_str());
    let months: std::collections::BTreeSet<&str> = months.collect();
    check(months.contains("2024-02-01") && months.len() > 2, || format!("{months:?}"))
}

fn changed_shape(server: Server) -> Res<()> {
    let mut scene = scene(server, "changed", "rows = \"region = 'eu'\"")?;
    let names = ["id", "email", "region"];
    scene.run_until_current()?;
    shows(&scene, "people", &names, "select id, email, region from people where region = 'eu'")?;
    let mut set = |line: &str| {
        let settings = &mut scene.setup.sources[0].settings;
        settings.clear();
        if !line.is_empty() {
            settings.push(("public.people".to_owned(), line.to_owned()));
        }
        scene.setup.write_config()
    };
    set("rows = \"region = 'us'\"\npartition_by = [\"id\"]")?;
    let run = |scene: &Scene| {
        change(scene, 1)?;
        scene.run_until_current()
    };
    scene.pg.exec("delete from people where id > 30")?;
    run(&scene)?;
    shows(&scene, "people", &names, "select id, email, region from people where region = 'us'")?;
    let settings = &mut scene.setup.sources[0].settings;
    settings.clear();
    scene.setup.write_config()?;
    scene.run_until_current()?;
    scene.equal("people")
}

fn refused_shape(server: Server) -> Res<()> {
    let mut scene = scene(server, "refused", "mask = { mail = \"drop\" }")?;
    scene.pg.exec("create table other(id int primary key); insert into other values (1)")?;
    scene.run_until_current()?;
    scene.equal("other")?;
    let (state, reason) = scene.state("people")?;
    check(state == "stopped", || state)?;
    has(&reason, "names a column mail")?;
    check(reader::read(&scene.url("people"))?.is_none_or(|lake| lake.rows.is_empty()), || {
        "rows came without their mask".to_owned()
    })?;
    // A table of changes can't become another one.
    let settings = &mut scene.setup.sources[0].settings;
    settings[0].1 = "mode = \"append\"".to_owned();
    scene.setup.write_config()?;
    scene.run_until_current()?;
    scene.setup.sources[0].settings.clear();
    scene.setup.write_config()?;
    scene.run_until_current()?;
    let (state, reason) = scene.state("people")?;
    check(state == "stopped", || state)?;
    has(&reason, "an append table keeps the rows")
}

fn renamed_in_place(server: Server) -> Res<()> {
    let scene = scene(server, "renamed", "partition_by = [\"year(at)\"]")?;
    scene.pg.exec(
        "create table money(id int primary key, n numeric(8,2), v varchar(9)); \
        insert into money select g, g / 3.0, 'v' || g from generate_series(1, 1000) g",
    )?;
    scene.run_until_current()?;
    scene.equal("money")?;
    // Names swapped at last, the key among them.
    for sql in [
        "update money set v = 'before' where id < 10; alter table money rename v to w; \
         update money set w = 'between' where id < 5",
        "alter table money alter n type numeric(12,2); \
         update money set n = 9999999999.99 where id = 1",
        "alter table money add v int; update money set v = 7 where id = 1; \
         delete from money where id = 2",
        "begin; alter table money rename id to x; alter table money rename n to id; \
         alter table money rename x to n; commit; update money set w = 'swapped' where n > 990",
    ] {
        scene.pg.exec(sql)?;
        scene.run_until_current()?;
        scene.equal("money")?;
    }
    has_not(&scene.setup.log_text()?, "reading the table again")
}

fn columns_by_policy(server: Server) -> Res<()> {
    let mut scene = scene(server, "policy", "columns = [\"!born\"]")?;
    let lines = |scene: &mut Scene, lines: &str| {
        scene.setup.sources[0].policy = lines.to_owned();
        scene.setup.write_config()
    };
    let columns = |scene: &Scene| {
        Ok::<_, String>(reader::read(&scene.url("people"))?.ok_or("no table")?.columns)
    };
    lines(&mut scene, "schema_changes = \"ignore-new\"\ndropped_columns = \"remove\"")?;
    scene.run_until_current()?;
    scene.pg.exec("alter table people add late int; update people set late = id where id < 9")?;
    scene.run_until_current()?;
    let names = ["id", "email", "phone", "region", "at", "big"];
    check(columns(&scene)? == names, || format!("{:?}", columns(&scene)))?;
    scene.pg.exec("alter table people drop phone; update people set region = 'x' where id < 9")?;
    scene.run_until_current()?;
    let names = ["id", "email", "region", "at", "big"];
    check(columns(&scene)? == names, || format!("{:?}", columns(&scene)))?;
    let query = "select id, email, region, at, big from people";
    shows(&scene, "people", &names, query)?;
    has_not(&scene.setup.log_text()?, "reading the table again")?;
    lines(&mut scene, "schema_changes = \"stop\"")?;
    scene.run_until_current()?;
    scene.pg.exec("alter table people add later int; update people set later = 1 where id < 9")?;
    scene.run_until_current()?;
    let (state, reason) = scene.state("people")?;
    check(state == "stopped", || state)?;
    has(&reason, "its columns changed")?;
    shows(&scene, "people", &names, query)
}
