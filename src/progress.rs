//! A bar for each table whose rows are being read, when a terminal watches.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::board::{Board, Progress};

/// How often bars are drawn; what they show changes about once a second.
const DRAWN: Duration = Duration::from_millis(250);

/// Draws bars for as long as it is polled.
pub async fn show(board: Board) {
    if !std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        return;
    }
    let bars = MultiProgress::new();
    let mut shown: BTreeMap<String, ProgressBar> = BTreeMap::new();
    loop {
        tokio::time::sleep(DRAWN).await;
        let mut running = BTreeMap::new();
        board.each(|source, facts| {
            for (table, facts) in &facts.tables {
                if let Some(progress) = facts.progress() {
                    running.insert(format!("{source} {table}"), progress);
                }
            }
        });
        for (name, progress) in &running {
            let bar = shown.entry(name.clone()).or_insert_with(|| {
                let bar = bars.add(ProgressBar::no_length());
                bar.set_message(name.clone());
                bar
            });
            draw(bar, progress);
        }
        shown.retain(|name, bar| {
            let runs = running.contains_key(name);
            if !runs {
                bar.finish_and_clear();
            }
            runs
        });
    }
}

fn draw(bar: &ProgressBar, progress: &Progress) {
    if bar.length() != progress.total {
        match progress.total {
            Some(total) => bar.set_length(total),
            None => bar.unset_length(),
        }
        bar.set_style(style(progress.total.is_some()));
    }
    bar.set_position(progress.rows);
}

fn style(bounded: bool) -> ProgressStyle {
    let template = match bounded {
        true => {
            "{spinner} {msg} {bar:24} {human_pos} of about {human_len} rows, {per_sec}, {eta} left"
        }
        false => "{spinner} {msg} {human_pos} rows, {per_sec}",
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
