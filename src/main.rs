//! `lakeward`: the command line.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use lakeward::config::{Config, LogConfig};
use lakeward::daemon::{self, Until};
use lakeward::pipeline::Act;
use lakeward::report;
use lakeward::verify::Request;
use lakeward_connectors::ErrorKind;
use tokio_util::sync::CancellationToken;
use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

mod arguments;
mod manual;

use arguments::{Arguments, Command, Configured};

/// Buffers come and go in large pieces on several threads; the system's allocator keeps twice as much
/// of them as is in use. `.cargo/config.toml` says how soon this one gives them back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Configured(command) => configured(command),
        Command::Completions { shell } => told(print(&manual::completions(shell)), "the output"),
        Command::Man { folder: None } => {
            told(manual::page().and_then(|page| print(&page)), "the output")
        }
        Command::Man { folder: Some(folder) } => told(manual::pages(&folder), folder.display()),
    }
}

/// How a command ends that only writes what is known already.
fn told(written: io::Result<()>, place: impl Display) -> ExitCode {
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!(
                "{place} can't be written: {error}; take a place with room that is yours to write"
            );
            ExitCode::FAILURE
        }
    }
}

/// Prints what was made. Whoever reads it may stop before its end, as `head` does.
fn print(text: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

fn configured(command: Configured) -> ExitCode {
    let common = command.common();
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
    let result = runtime.block_on(perform(command, config, json));
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
    command: Configured,
    mut config: Config,
    json: bool,
) -> lakeward_connectors::Result<ExitCode> {
    match command {
        Configured::Run { common, until_current, listen } => {
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
        Configured::Check { .. } => report::check(&config, json).await,
        Configured::Status { watch: true, .. } => report::watch(&config).await,
        Configured::Status { .. } => report::status(&config, json).await,
        Configured::Tables { .. } => report::tables(&config, json).await,
        Configured::Maintain { .. } => report::maintain(&config, json).await,
        Configured::Verify { source, table, repair, .. } => {
            let stop = CancellationToken::new();
            let signals = tokio::spawn(stop_on_signals(stop.clone()));
            let request = Request { table, repair };
            let verified = report::verify(&config, &source, request, json, stop).await;
            signals.abort();
            verified
        }
        Configured::Snapshot { source, table, .. } => {
            report::act(&config, Act::Snapshot, &source, &table, json).await
        }
        Configured::Pause { source, table, .. } => {
            report::act(&config, Act::Pause, &source, &table, json).await
        }
        Configured::Resume { source, table, .. } => {
            report::act(&config, Act::Resume, &source, &table, json).await
        }
        Configured::Remove { source, drop_slot, .. } => {
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
    let filter = EnvFilter::try_new(&log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    // What libraries say in detail repeats statements, addresses and headers: whatever is asked for,
    // only our own lines come below `info`.
    let discreet =
        filter_fn(|line| *line.level() <= Level::INFO || line.target().starts_with("lakeward"));
    let lines = tracing_subscriber::registry().with(filter).with(discreet);
    let shown = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match log.json {
        true => lines.with(shown.json()).init(),
        false => {
            let ansi = std::env::var_os("NO_COLOR").is_none() && is_terminal();
            lines.with(shown.with_target(false).with_ansi(ansi)).init();
        }
    }
}

fn is_terminal() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stderr())
}
