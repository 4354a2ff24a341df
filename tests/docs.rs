//! The documentation says what the program says: each error that a user can meet stands on the page of
//! messages, each key in the configuration's file, and each link leads somewhere.

use std::fs;
use std::path::{Path, PathBuf};

use lakeward::config::Config;

use crate::support::jobs::Job;
use crate::support::scene::check;
use crate::support::{Context, Res};

/// `docs::messages`, `docs::configuration`, `docs::links`.
pub fn jobs(select: &dyn Fn(&str) -> bool) -> Vec<Job> {
    let trial = |name: &str, run: fn() -> Res<()>| {
        let name = format!("docs::{name}");
        select(&name).then(|| Job::single(name, run))
    };
    let all =
        [trial("messages", messages), trial("configuration", configuration), trial("links", links)];
    all.into_iter().flatten().collect()
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn text(path: &Path) -> Res<String> {
    fs::read_to_string(path).context(format!("reading {}", path.display()))
}

/// All files of that ending below a folder.
fn files(folder: &Path, ending: &str) -> Res<Vec<PathBuf>> {
    let (mut open, mut found) = (vec![folder.to_owned()], Vec::new());
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).context(format!("listing {}", folder.display()))? {
            let path = entry.context("an entry of a folder")?.path();
            match path.is_dir() {
                true => open.push(path),
                false if path.extension().is_some_and(|is| is == ending) => found.push(path),
                false => {}
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The errors that have a row of their own; those of the kind `internal` are bugs, and have one row
/// together.
const KINDS: [&str; 4] = ["config", "unavailable", "gap", "table"];

/// Errors that nobody sees: the pipeline has ended already.
const UNSEEN: [&str; 4] = [
    "nobody reads the log any more",
    "nobody waits for the chunk any more",
    "an answer before was not read to its end",
    "it took too long",
];

fn messages() -> Res<()> {
    let page = words(&text(&here("docs/operating.md"))?);
    let (mut count, mut missing) = (0, Vec::new());
    for folder in ["src", "connectors"] {
        for file in files(&here(folder), "rs")? {
            let name = file.strip_prefix(here("")).unwrap_or(&file).display().to_string();
            if ["tests", "scripted", "planted"].iter().any(|part| name.contains(part)) {
                continue;
            }
            let text = text(&file)?;
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            for message in KINDS.iter().flat_map(|kind| said(code, &format!("Error::{kind}("))) {
                count += 1;
                let part = longest(&message);
                if !page.contains(&part) && !UNSEEN.contains(&part.as_str()) {
                    missing.push(format!("{name}: {message}"));
                }
            }
        }
    }
    check(count > 80, || format!("only {count} messages were found in the code"))?;
    check(missing.is_empty(), || {
        format!("docs/operating.md doesn't have:\n  {}", missing.join("\n  "))
    })
}

/// The text with each run of white space as one space.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The first text that each such call is given, where it is given one.
fn said(code: &str, call: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(call) {
        let rest = &code[at + call.len()..];
        let Some(quote) = rest.find('"') else { continue };
        let before = &rest[..quote];
        // The text of a call that follows this one.
        let mut open = 1;
        if before.chars().any(|letter| {
            open += i64::from(letter == '(') - i64::from(letter == ')');
            open == 0
        }) {
            continue;
        }
        let mut message = String::new();
        let mut letters = rest[quote + 1..].chars();
        while let Some(letter) = letters.next() {
            match letter {
                '"' => break,
                '\\' => match letters.next() {
                    Some('\n') => message.push(' '),
                    Some(other) => message.push(other),
                    None => break,
                },
                letter => message.push(letter),
            }
        }
        found.push(words(&message));
    }
    found
}

/// The longest part of a message that stays the same, whatever is filled in.
fn longest(message: &str) -> String {
    let parts = message.split('{').enumerate().map(|(number, part)| match number {
        0 => part,
        _ => part.split_once('}').map_or("", |(_, after)| after),
    });
    let trimmed = parts.map(|part| part.trim_matches([' ', ';', ':', ',', '(', ')', '\'']));
    trimmed.max_by_key(|part| part.len()).unwrap_or_default().to_owned()
}

/// `config.toml` has every key that the program knows: asked for one that it doesn't know, it names
/// those of the section.
fn configuration() -> Res<()> {
    let mut asked = String::new();
    for line in text(&here("config.toml"))?.lines() {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        let key = bare.split_once(" = ").is_some_and(|(key, _)| {
            !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        });
        match bare.starts_with("[") {
            true => asked.push_str(&format!("{bare}\nzzzzzzzz = 1\n")),
            false if key => asked.push_str(&format!("{bare}\n")),
            false => {}
        }
    }
    let sections = asked.matches("zzzzzzzz").count();
    let variable = |_: &str| Some("a value for each variable".to_owned());
    let faults = Config::parse(&asked, variable).err().unwrap_or_default();
    let lines: Vec<&str> = asked.lines().collect();
    let (mut told, mut missing) = (0, Vec::new());
    for fault in &faults {
        let Some((place, known)) = fault.message.split_once("; known here: ") else { continue };
        told += 1;
        let after = lines.iter().skip(fault.line);
        let section: Vec<_> = after.take_while(|line| !line.starts_with('[')).collect();
        for key in known.split(", ") {
            let has = section.iter().any(|line| line.starts_with(&format!("{key} = ")));
            let below = lines.iter().any(|line| {
                line.starts_with('[') && line.split(['.', ']']).any(|part| part == key)
            });
            if !has && !below {
                missing.push(format!("{place}: {key}"));
            }
        }
    }
    check(told == sections && told > 8, || format!("{told} of {sections} sections: {faults:#?}"))?;
    check(missing.is_empty(), || format!("config.toml lacks {missing:#?}"))
}

/// Every link of a page to a file of the project leads to one.
fn links() -> Res<()> {
    let mut pages = files(&here("docs"), "md")?;
    let top = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "benches/README.md"];
    pages.extend(top.map(here));
    let (mut count, mut broken) = (0, Vec::new());
    for page in pages {
        let folder = page.parent().unwrap_or(&page).to_owned();
        for link in text(&page)?.split("](").skip(1) {
            let link = link.split([')', '#', ' ']).next().unwrap_or_default();
            if link.is_empty() || link.contains("://") {
                continue;
            }
            count += 1;
            if !folder.join(link).exists() {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    check(count > 40, || format!("only {count} links were found"))?;
    check(broken.is_empty(), || format!("links lead nowhere: {broken:#?}"))
}
