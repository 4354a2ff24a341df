//! What is made of the command line's definition: completions and man pages. Both are there before
//! anything is configured.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::daemon::Answer;
use crate::support::jobs::Job;
use crate::support::scene::{check, has};
use crate::support::{Context, Res};

/// `manual::completions`, `manual::pages`, `manual::refusals`.
pub fn jobs(select: &dyn Fn(&str) -> bool) -> Vec<Job> {
    let trial = |name: &str, run: fn() -> Res<()>| {
        let name = format!("manual::{name}");
        select(&name).then(|| Job::single(name, run))
    };
    let all =
        [trial("completions", completions), trial("pages", pages), trial("refusals", refusals)];
    all.into_iter().flatten().collect()
}

fn empty() -> Res<tempfile::TempDir> {
    let folder = tempfile::Builder::new().prefix("lakeward-test-").tempdir();
    folder.context("a temporary folder")
}

/// What the binary answers in a folder without a configuration.
fn answer(folder: &Path, arguments: &[&str]) -> Res<Answer> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lakeward"));
    let out = command.args(arguments).current_dir(folder).stdin(Stdio::null()).output();
    let out = out.context("starting lakeward")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Answer { code: out.status.code(), stdout: text(&out.stdout), stderr: text(&out.stderr) })
}

/// What it says, when all is well.
fn said(folder: &Path, arguments: &[&str]) -> Res<String> {
    let answer = answer(folder, arguments)?;
    check(answer.code == Some(0), || format!("{arguments:?}: {:?} {}", answer.code, answer.all()))?;
    Ok(answer.stdout)
}

/// The commands that `--help` lists, but for `help` itself.
fn commands(help: &str) -> Vec<&str> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = list.take_while(|line| !line.is_empty()).filter_map(|line| {
        // A line that begins deeper continues the one above.
        line.strip_prefix("  ").filter(|rest| !rest.starts_with(' '))?.split(' ').next()
    });
    names.filter(|name| *name != "help").collect()
}

/// The long options that a text names.
fn options(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-');
    let options = words.filter(|word| word.strip_prefix("--").is_some_and(|name| !name.is_empty()));
    options.map(str::to_owned).collect()
}

/// Each shell's name all commands and options; bash's is one.
fn completions() -> Res<()> {
    let folder = empty()?;
    let help = said(folder.path(), &["--help"])?;
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = said(folder.path(), &["completions", shell])?;
        for name in commands(&help) {
            has(&script, name).map_err(|error| format!("{shell}: {error}"))?;
            for option in options(&said(folder.path(), &[name, "--help"])?) {
                // fish's options stand without their dashes.
                has(&script, &option[2..]).map_err(|error| format!("{shell}, {name}: {error}"))?;
            }
        }
        let file = folder.path().join(format!("completions.{shell}"));
        fs::write(&file, script).context("the completions")?;
    }
    let parsed = bash(folder.path(), &["-n", "completions.bash"])?;
    check(parsed.is_empty(), || format!("bash -n: {parsed}"))?;
    let completing = "source ./completions.bash; COMP_WORDS=(lakeward sn) COMP_CWORD=1; \
        _lakeward lakeward sn lakeward; echo \"${COMPREPLY[@]}\"";
    let completed = bash(folder.path(), &["-c", completing])?;
    check(completed.trim() == "snapshot", || format!("sn is completed to {completed:?}"))
}

/// What bash says, and it must end well.
fn bash(folder: &Path, arguments: &[&str]) -> Res<String> {
    let out = Command::new("bash").args(arguments).current_dir(folder).output();
    let out = out.context("starting bash")?;
    let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    check(out.status.success(), || format!("bash: {said}"))?;
    Ok(said)
}

/// A man page without its fonts and escapes.
fn bare(page: &str) -> String {
    ["\\fB", "\\fI", "\\fR"]
        .iter()
        .fold(page.replace("\\-", "-"), |page, font| page.replace(font, ""))
}

/// There is a page for each command, and it has every option; the main page has every command.
fn pages() -> Res<()> {
    let folder = empty()?;
    let help = said(folder.path(), &["--help"])?;
    let commands = commands(&help);
    check(commands.len() > 9, || format!("only {commands:?} are in the help"))?;
    said(folder.path(), &["man", "made/man1"])?;
    let page = |name: &str| -> Res<String> {
        let text = fs::read_to_string(folder.path().join("made/man1").join(name)).context(name)?;
        Ok(bare(&text))
    };
    let main = page("lakeward.1")?;
    let printed = bare(&said(folder.path(), &["man"])?);
    check(main == printed, || "the page that is printed is another one".to_owned())?;
    for name in &commands {
        has(&main, &format!("lakeward-{name}(1)"))?;
        let page = page(&format!("lakeward-{name}.1"))?;
        let named = options(&page);
        for option in options(&said(folder.path(), &[name, "--help"])?) {
            check(named.contains(&option), || format!("the page of {name} lacks {option}"))?;
        }
    }
    let count = fs::read_dir(folder.path().join("made/man1")).context("the pages")?.count();
    check(count == commands.len() + 1, || format!("{count} pages for {commands:?}"))
}

/// What can't be done is said.
fn refusals() -> Res<()> {
    let folder = empty()?;
    fs::write(folder.path().join("file"), "").context("a file")?;
    let place = answer(folder.path(), &["man", "file/man1"])?;
    check(place.code == Some(1), || format!("{place:?}"))?;
    has(&place.stderr, "file/man1")?;
    let shell = answer(folder.path(), &["completions", "dosh"])?;
    check(shell.code == Some(2), || format!("{shell:?}"))?;
    has(&shell.stderr, "bash")
}
