//! The command line's definition: what is parsed, what `--help` says, and what [`crate::manual`] makes
//! completions and man pages of.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

/// Keeps Delta Lake tables equal to operational databases.
///
/// Reads the database's own log, bootstraps each table beside it, and commits every source
/// position together with its rows: it may be stopped, killed and started again at any moment.
///
/// Exit code: 0 well, 2 the configuration (or what it refers to) has to change, 1 anything else.
#[derive(Parser)]
#[command(name = "lakeward", version, max_term_width = 100)]
pub struct Arguments {
    /// What is to be done.
    #[command(subcommand)]
    pub command: Command,
}

/// All commands: those that need a configuration, and those that are about the command line itself.
#[derive(Subcommand)]
pub enum Command {
    #[command(flatten)]
    Configured(Configured),
    /// Print the completions for a shell
    ///
    /// For bash into ~/.local/share/bash-completion/completions/lakeward, for zsh into _lakeward in a
    /// folder of $fpath, for fish into ~/.config/fish/completions/lakeward.fish.
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Print the man page, or write it and those of all commands into a folder
    Man {
        /// Where lakeward.1, lakeward-run.1 and so on are written; made if it isn't there
        folder: Option<PathBuf>,
    },
}

/// The commands that read a configuration.
#[derive(Subcommand)]
pub enum Configured {
    /// Keep every source's tables, until stopped (SIGTERM and Ctrl-C flush and commit first)
    Run {
        #[command(flatten)]
        common: Common,
        /// End as soon as everything committed in the sources at the start is in the lake: for
        /// cron, Airflow and the like
        #[arg(long)]
        until_current: bool,
        /// Show the status page, /metrics and /health here instead of at http.listen
        #[arg(long, value_name = "ADDRESS")]
        listen: Option<SocketAddr>,
    },
    /// Say everything that would keep a source from being kept, with the statement that mends it;
    /// changes nothing
    Check {
        #[command(flatten)]
        common: Common,
    },
    /// Say what every table holds, and what its last verification found, from the lake itself: works
    /// whether or not the daemon runs
    ///
    /// A daemon that runs is asked how many bytes it writes for each byte of rows that come (WRITE ×).
    Status {
        #[command(flatten)]
        common: Common,
        /// Look again every two seconds, until Ctrl-C
        #[arg(long, conflicts_with = "json")]
        watch: bool,
    },
    /// List the tables that the configuration asks for, where they are in the lake, and which can't
    /// be kept
    Tables {
        #[command(flatten)]
        common: Common,
    },
    /// Compare lake and source, row by row, while both change; exit code 1 if they differ
    ///
    /// The running daemon does it beside its other work, no faster than verify_rate says. Without
    /// one, the source is first brought up to date, as by run --until-current.
    Verify {
        /// The source's name in the configuration
        source: String,
        /// A table, as schema.name; without it, all tables of the source
        table: Option<String>,
        #[command(flatten)]
        common: Common,
        /// Read rows that differ again, and remove those that only the lake has
        #[arg(long)]
        repair: bool,
    },
    /// Read a table again, beside the rows that readers see; also one that stopped
    ///
    /// The running daemon does it. Readers see the new rows in one commit, when all have been read;
    /// a table of mode "append" gets every row once more.
    Snapshot {
        /// The source's name in the configuration
        source: String,
        /// The table, as schema.name
        table: String,
        #[command(flatten)]
        common: Common,
    },
    /// Let a table's rows in the lake stay as they are; its changes are kept beside them until
    /// it is resumed
    ///
    /// The running daemon does it, and the command ends once the table rests. The database is read
    /// and acknowledged as before. A restart does not end a pause; what reads the table again does.
    Pause {
        /// The source's name in the configuration
        source: String,
        /// The table, as schema.name
        table: String,
        #[command(flatten)]
        common: Common,
    },
    /// Let a paused table follow the source again
    Resume {
        /// The source's name in the configuration
        source: String,
        /// The table, as schema.name
        table: String,
        #[command(flatten)]
        common: Common,
    },
    /// Delete the files that no version within lake.retention needs, as the daemon does every hour
    Maintain {
        #[command(flatten)]
        common: Common,
    },
    /// Forget a source: its tables stay, its positions go; added again, every table is read again
    Remove {
        /// The source's name in the configuration
        source: String,
        #[command(flatten)]
        common: Common,
        /// Also drop the publication and the slot that were made for it in the database
        #[arg(long)]
        drop_slot: bool,
    },
}

impl Configured {
    /// The options that every one of them takes.
    pub fn common(&self) -> &Common {
        match self {
            Configured::Run { common, .. }
            | Configured::Check { common }
            | Configured::Status { common, .. }
            | Configured::Tables { common }
            | Configured::Maintain { common }
            | Configured::Snapshot { common, .. }
            | Configured::Pause { common, .. }
            | Configured::Resume { common, .. }
            | Configured::Verify { common, .. }
            | Configured::Remove { common, .. } => common,
        }
    }
}

/// The options of every command that reads a configuration.
#[derive(Args)]
pub struct Common {
    /// The configuration
    #[arg(long, default_value = "config.toml", value_name = "FILE")]
    pub config: PathBuf,
    /// Print one JSON value instead of text
    #[arg(long)]
    pub json: bool,
}
