//! The configuration is read again when its file has changed, and on SIGHUP.

use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info};

use crate::config::Config;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// A configuration to change to.
#[derive(Debug)]
pub(super) struct Reload {
    pub(super) config: Config,
    /// Whether somebody asked by SIGHUP: sources that have ended are tried again.
    pub(super) asked: bool,
}

/// Sends every configuration that `file` holds from now on. A faulty one is told and not sent.
pub(super) async fn watch(file: PathBuf, changes: mpsc::Sender<Reload>) {
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(error) => {
            error!(%error, "changes of the configuration can't be watched; restart to apply them");
            return;
        }
    };
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut taken, mut seen) = (None, None);
    loop {
        let asked = tokio::select! {
            _ = tick.tick() => false,
            Some(()) = hangup.recv() => true,
        };
        let now = tokio::fs::read(&file).await.ok();
        // Somebody may be in the middle of writing it: it counts once it stays the same.
        let settled = now == seen && now.is_some() && now != taken;
        seen = now;
        if !asked && !settled {
            continue;
        }
        taken.clone_from(&seen);
        if asked {
            info!("reading the configuration again");
        }
        match Config::read(&file) {
            Ok(config) => {
                if changes.send(Reload { config, asked }).await.is_err() {
                    return;
                }
            }
            Err(faults) => {
                for fault in &faults.faults {
                    let (line, what) = (fault.line, &fault.message);
                    error!(file = %file.display(), line, "a fault in the configuration: {what}");
                }
                error!("the changed configuration is not applied: everything goes on as it was");
            }
        }
    }
}
