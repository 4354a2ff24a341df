//! `lakeward`: the command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use lakeward::config::{Config, LogConfig};
use lakeward::daemon::{self, Until};
use lakeward::pipeline::Act;
use lakeward::report;
use lakeward::verify::Request;
use lakeward_connectors::ErrorKind;
use tokio_util::sync::CancellationToken;

/// Buffers come and go in large pieces on several threads; the system's allocator keeps twice as much
/// of them as is in use. `.cargo/config.toml` says how soon this one gives them back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Keeps Delta Lake tables equal to operational databases.
///
/// Reads the database's own log, bootstraps each table beside it, and commits every source
/// position together with its rows: it may be stopped, killed and started again at any moment.
///
/// Exit code: 0 well, 2 the configuration (or what it refers to) has to change, 1 anything else.
#[derive(Parser)]
#[command(name = "lakeward", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
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
        listen: Option<std::net::SocketAddr>,
    },
    /// Say everything that would keep a source from being kept, with the statement that mends it;
    /// changes nothing
    Check {
        #[command(flatten)]
        common: Common,
    },
    /// Say what every table holds, from the lake itself: works whether or not the daemon runs
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

#[derive(clap::Args)]
struct Common {
    /// The configuration
    #[arg(long, default_value = "config.toml", value_name = "FILE")]
    config: PathBuf,
    /// Print one JSON value instead of text
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let common = match &arguments.command {
        Command::Run { common, .. }
        | Command::Check { common }
        | Command::Status { common, .. }
        | Command::Tables { common }
        | Command::Maintain { common }
        | Command::Snapshot { common, .. }
        | Command::Pause { common, .. }
        | Command::Resume { common, .. }
        | Command::Verify { common, .. }
        | Command::Remove { common, .. } => common,
    };
    let json = common.json;
    let config = match Config::read(&common.config) {
        Ok(config) => config,
        Err(faults) => {
            eprintln!("{faults}");
            return ExitCode::from(2);
        }
    };
    start_log(&config.log);
    // Both TLS users of this process, the store and the sources, take this one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("the runtime can't be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(perform(arguments.command, config, json));
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{}", error.full());
            code_of(&error)
        }
    }
}

fn code_of(error: &lakeward_connectors::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::Config => ExitCode::from(2),
        _ => ExitCode::FAILURE,
    }
}

async fn perform(
    command: Command,
    mut config: Config,
    json: bool,
) -> lakeward_connectors::Result<ExitCode> {
    match command {
        Command::Run { common, until_current, listen } => {
            let stop = CancellationToken::new();
            let signals = tokio::spawn(stop_on_signals(stop.clone()));
            config.listen = listen.unwrap_or(config.listen);
            let until = match until_current {
                true => Until::Current(None),
                false => Until::Stopped(&common.config),
            };
            let outcome = daemon::keep(&config, until, stop.clone()).await;
            signals.abort();
            report::ended(&outcome?, until_current, stop.is_cancelled(), json)
        }
        Command::Check { .. } => report::check(&config, json).await,
        Command::Status { watch: true, .. } => report::watch(&config).await,
        Command::Status { .. } => report::status(&config, json).await,
        Command::Tables { .. } => report::tables(&config, json).await,
        Command::Maintain { .. } => report::maintain(&config, json).await,
        Command::Verify { source, table, repair, .. } => {
            let stop = CancellationToken::new();
            let signals = tokio::spawn(stop_on_signals(stop.clone()));
            let request = Request { table, repair };
            let verified = report::verify(&config, &source, request, json, stop).await;
            signals.abort();
            verified
        }
        Command::Snapshot { source, table, .. } => {
            report::act(&config, Act::Snapshot, &source, &table, json).await
        }
        Command::Pause { source, table, .. } => {
            report::act(&config, Act::Pause, &source, &table, json).await
        }
        Command::Resume { source, table, .. } => {
            report::act(&config, Act::Resume, &source, &table, json).await
        }
        Command::Remove { source, drop_slot, .. } => {
            report::remove(&config, &source, drop_slot, json).await
        }
    }
}

/// Cancels `stop` at the first SIGTERM or SIGINT.
async fn stop_on_signals(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals can't be watched; end the process with SIGKILL, nothing is lost");
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("told to stop: flushing and committing");
    stop.cancel();
}

fn start_log(log: &LogConfig) {
    let filter = tracing_subscriber::EnvFilter::try_new(&log.level)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match log.json {
        true => builder.json().init(),
        false => builder
            .with_target(false)
            .with_ansi(std::env::var_os("NO_COLOR").is_none() && is_terminal())
            .init(),
    }
}

fn is_terminal() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stderr())
}
