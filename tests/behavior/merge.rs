//! Both ways of merging lead to the same rows, and a table goes from one to the other.

use crate::support::jobs::Job;
use crate::support::scene::{DELETION_VECTORS, Scene, Test, check, trials};
use crate::support::{Context, Res, Server, Store};

const TESTS: &[Test] = &[("deletion_vectors", deletion_vectors), ("to_and_fro", to_and_fro)];

pub fn jobs(select: &dyn Fn(&str) -> bool) -> Vec<Job> {
    trials("behavior::merge", TESTS, &[Server::Pg15], select)
}

const TABLES: &str = "create table t(id int primary key, v text, w text); \
    insert into t select g, 'v' || g, repeat('w', 20) from generate_series(1, 20000) g; \
    create table r(id int primary key, v text); insert into r select id, v from t; \
    create table k(a int, b text); alter table k replica identity full; \
    insert into k select g % 7, 'b' from generate_series(1, 200) g";

fn change(scene: &Scene, n: i32) -> Res<()> {
    for table in ["t", "r"] {
        scene.pg.exec(&format!("update {table} set v = v || {n} where id % 1000 = {n}"))?;
        scene.pg.exec(&format!("delete from {table} where id % 700 = {n}"))?;
        scene.pg.exec(&format!("insert into {table} values ({}, 'new')", 100_000 + n))?;
        scene.pg.exec(&format!("update {table} set id = -id where id = {}", 300 + n))?;
    }
    scene.pg.exec(&format!("delete from k where a = {n}; insert into k values (3, 'n')"))
}

/// The names of a table's deletion vectors.
fn vectors(scene: &Scene, table: &str) -> Res<usize> {
    let folder = std::fs::read_dir(scene.url(table)).context("the table's folder")?;
    let names = folder.filter_map(|entry| Some(entry.ok()?.file_name()));
    Ok(names.filter(|name| name.to_string_lossy().ends_with(".bin")).count())
}

fn deletion_vectors(server: Server) -> Res<()> {
    let scene = Scene::with(
        server,
        Store::Local,
        "merge",
        TABLES,
        &[("t", DELETION_VECTORS), ("k", DELETION_VECTORS)],
    )?;
    scene.run_until_current()?;
    for n in 0..4 {
        change(&scene, n)?;
        scene.run_until_current()?;
        scene.all_equal(&["t", "r", "k"])?;
    }
    check(vectors(&scene, "t")? > 0, || "t was not merged by deletion vectors".to_owned())?;
    check(vectors(&scene, "r")? == 0, || "r was merged by deletion vectors".to_owned())
}

fn to_and_fro(server: Server) -> Res<()> {
    let mut scene = Scene::new(server, Store::Local, "to_and_fro", TABLES)?;
    for n in 0..4 {
        let line = ("public.t".to_owned(), DELETION_VECTORS.to_owned());
        let settings = if n % 2 == 1 { vec![line] } else { Vec::new() };
        scene.setup.sources.iter_mut().for_each(|source| source.settings.clone_from(&settings));
        scene.setup.write_config()?;
        change(&scene, n)?;
        scene.run_until_current()?;
        scene.all_equal(&["t", "r", "k"])?;
    }
    check(vectors(&scene, "t")? > 0, || "t was not merged by deletion vectors".to_owned())
}
