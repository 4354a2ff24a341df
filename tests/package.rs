//! What `./dev package` makes of a binary: here of the one under test, for a release takes minutes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::jobs::Job;
use crate::support::scene::{check, has, has_not};
use crate::support::{Context, Res};

/// `package::bill`, `package::archives`.
pub fn jobs(select: &dyn Fn(&str) -> bool) -> Vec<Job> {
    let trial = |name: &str, run: fn() -> Res<()>| {
        let name = format!("package::{name}");
        select(&name).then(|| Job::single(name, run))
    };
    [trial("bill", bill), trial("archives", archives)].into_iter().flatten().collect()
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// What a command prints, which has to end well.
fn out(command: &mut Command) -> Res<String> {
    let done = command.output().context(format!("starting {command:?}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (said, faults) = (text(&done.stdout), text(&done.stderr));
    check(done.status.success(), || format!("{command:?}: {said}\n{faults}"))?;
    Ok(said)
}

/// The crates of `Cargo.lock` by name and version, each with its checksum if it has one.
fn locked() -> Res<BTreeMap<(String, String), Option<String>>> {
    let text = std::fs::read_to_string(here("Cargo.lock")).context("Cargo.lock")?;
    let value = |part: &str, key: &str| {
        let line = part.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    let parts = text.split("[[package]]").skip(1);
    let crates = parts.filter_map(|part| {
        Some(((value(part, "name")?, value(part, "version")?), value(part, "checksum")))
    });
    Ok(crates.collect())
}

/// The list of crates has those that are compiled for the program, as `Cargo.lock` holds them, and
/// none that only the tests need; it names nothing of the machine.
fn bill() -> Res<()> {
    let mut command = Command::new("python3");
    command.arg(here("deploy/package/sbom.py")).env("SOURCE_DATE_EPOCH", "1000000000");
    let said = out(&mut command)?;
    let bill: Value = serde_json::from_str(&said).context("the list of crates")?;
    check(bill["specVersion"] == "1.5", || "it is of another version".to_owned())?;
    check(bill["metadata"]["timestamp"] == "2001-09-09T01:46:40Z", || "another time".to_owned())?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let locked = locked()?;
    let mut scopes = BTreeMap::new();
    for part in bill["components"].as_array().into_iter().flatten() {
        let (name, version) = (text(&part["name"]), text(&part["version"]));
        let known = locked.get(&(name.clone(), version));
        let sum = part["hashes"][0]["content"].as_str().map(str::to_owned);
        check(known == Some(&sum), || format!("Cargo.lock has another {name}: {known:?}"))?;
        scopes.insert(name, text(&part["scope"]));
    }
    let scope = |name: &str| scopes.get(name).map(String::as_str);
    for (name, expected) in [
        ("lakeward-connectors", Some("required")),
        ("parquet", Some("required")),
        ("ring", Some("required")),
        ("cc", Some("excluded")),
        ("serde_derive", Some("excluded")),
        ("libtest-mimic", None),
        ("proptest", None),
    ] {
        check(scope(name) == expected, || format!("{name} is {:?}", scope(name)))?;
    }
    let parts: Vec<_> = bill["components"].as_array().into_iter().flatten().collect();
    let mut known: BTreeSet<String> = parts.iter().map(|part| text(&part["bom-ref"])).collect();
    check(known.len() == parts.len(), || "a crate is named twice".to_owned())?;
    known.insert(text(&bill["metadata"]["component"]["bom-ref"]));
    let edges: Vec<_> = bill["dependencies"].as_array().into_iter().flatten().collect();
    let from: BTreeSet<String> = edges.iter().map(|edge| text(&edge["ref"])).collect();
    check(from == known, || "the crates and what they need are not the same".to_owned())?;
    let mut to = edges.iter().flat_map(|edge| edge["dependsOn"].as_array().into_iter().flatten());
    check(to.all(|end| known.contains(&text(end))), || "a crate needs an unknown one".to_owned())?;
    has_not(&said, env!("CARGO_MANIFEST_DIR"))?;
    has_not(&said, "file:")
}

/// The archives hold what they should, and the unit starts the program that lies beside it.
fn archives() -> Res<()> {
    let folder = tempfile::Builder::new().prefix("lakeward-test-").tempdir();
    let folder = folder.context("a temporary folder")?;
    let mut command = Command::new(here("deploy/package/run"));
    command.arg(folder.path()).env("LAKEWARD", env!("CARGO_BIN_EXE_lakeward"));
    // Compressing well takes longer than all else.
    command.env("DPKG_DEB_COMPRESSOR_TYPE", "none");
    out(&mut command)?;
    let within = |program: &str| {
        let mut command = Command::new(program);
        command.current_dir(folder.path());
        command
    };
    let sums = out(within("sha256sum").args(["-c", "SHA256SUMS"]))?;
    let named: Vec<&str> = sums.lines().filter_map(|line| line.strip_suffix(": OK")).collect();
    let made = |ending: &str| named.iter().copied().find(|name| name.ends_with(ending));
    check(made(".cdx.json").is_some(), || format!("no list of crates: {named:?}"))?;
    let tarball = made(".tar.gz").ok_or(format!("no tarball: {named:?}"))?;
    let list = out(within("tar").args(["-tf", tarball]))?;
    let top = tarball.trim_end_matches(".tar.gz");
    for name in ["lakeward", "man/lakeward.1", "completions/lakeward.bash", "lakeward.service"] {
        check(list.lines().any(|line| line == format!("{top}/{name}")), || {
            format!("{name}: {list}")
        })?;
    }
    let Some(package) = made(".deb") else {
        let none = Command::new("dpkg-deb").arg("--version").output().is_err();
        return check(none, || format!("no Debian package: {named:?}"));
    };
    out(within("dpkg-deb").args(["-x", package, "root"]))?;
    let control = out(within("dpkg-deb").args(["-f", package, "Version", "Depends"]))?;
    has(&control, env!("CARGO_PKG_VERSION"))?;
    has(&control, "libc6 (>= 2.")?;
    for name in [
        "usr/lib/systemd/system/lakeward.service",
        "usr/share/man/man1/lakeward-run.1.gz",
        "usr/share/bash-completion/completions/lakeward",
        "usr/share/zsh/vendor-completions/_lakeward",
        "usr/share/fish/vendor_completions.d/lakeward.fish",
        "usr/share/doc/lakeward/copyright",
        "usr/share/doc/lakeward/THIRD-PARTY.txt.gz",
        "usr/share/doc/lakeward/examples/config.toml",
    ] {
        check(folder.path().join("root").join(name).is_file(), || format!("no {name}"))?;
    }
    let unit = folder.path().join("root/usr/lib/systemd/system/lakeward.service");
    let unit = std::fs::read_to_string(unit).context("the unit")?;
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/"));
    let program = start.and_then(|line| line.split(' ').next()).unwrap_or_default();
    let answer = out(within(&format!("root/{program}")).arg("--version"))?;
    check(answer.trim() == format!("lakeward {}", env!("CARGO_PKG_VERSION")), || answer.clone())
}
