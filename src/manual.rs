//! What a shell and `man` are told of the command line, made from its definition.

use std::fs;
use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::arguments::Arguments;

/// The completions for a shell.
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut definition = Arguments::command();
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut definition, "lakeward", &mut text);
    text
}

/// The main man page. Those of the commands, to which it refers, are written by [`pages`] only.
///
/// # Errors
/// None that can be expected: it is written to memory.
pub fn page() -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    Man::new(definition()).render(&mut text)?;
    Ok(text)
}

/// Writes `lakeward.1` and a page of each command into a folder, which is made if it isn't there.
///
/// # Errors
/// When the folder can't be made or written to.
pub fn pages(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    clap_mangen::generate_to(definition(), folder)
}

/// Without the command `help`, which would need a page for each command that it knows.
fn definition() -> Command {
    Arguments::command().disable_help_subcommand(true)
}
