//! The status as text for a terminal: aligned columns, and below a table what is to be said of it.

use console::{Style, measure_text_width};

use super::{SourceStatus, Sources, TableStatus};
use crate::epoch::State;
use crate::verify::{Outcome, Verified};

/// The heads of the columns: the first two and the last are text, the others numbers.
const HEADS: [&str; 8] =
    ["table", "state", "rows", "files", "size", "write ×", "version", "verified"];

/// A line's cells, and how wide each is.
type Cells = [String; HEADS.len()];
type Widths = [usize; HEADS.len()];

/// Everything known of all sources, at `now` in milliseconds of Unix time. Colours are left out where
/// the output is no terminal, and with NO_COLOR.
pub(super) fn text(sources: &Sources, now: i64) -> String {
    if sources.is_empty() {
        return "the lake knows no source of this configuration yet\n".to_owned();
    }
    // All sources in one grid: columns stand below one another.
    let rows = sources.values().flat_map(|source| source.tables.iter());
    let mut widths = HEADS.map(measure_text_width);
    for (name, table) in rows {
        for (width, cell) in widths.iter_mut().zip(cells(name, table, now)) {
            *width = measure_text_width(&cell).max(*width);
        }
    }
    let mut text = String::new();
    for (index, (name, source)) in sources.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        one(&mut text, name, source, &widths, now);
    }
    text
}

fn one(text: &mut String, name: &str, source: &SourceStatus, widths: &Widths, now: i64) {
    let age = ago(now - source.written_ms);
    let (bold, dim) = (Style::new().bold(), Style::new().dim());
    let title = bold.apply_to(plain(name));
    text.push_str(&format!("{title}  epoch {}, {age}, at {}\n", source.epoch, source.to));
    let heads = HEADS.map(|head| head.to_uppercase());
    text.push_str(&format!("  {}\n", dim.apply_to(line(&heads, widths, None))));
    let mut tables: Vec<_> = source.tables.iter().collect();
    tables.sort_by_key(|(name, table)| (urgency(table), *name));
    for (name, table) in tables {
        text.push_str(&format!("  {}\n", line(&cells(name, table, now), widths, Some(table))));
        if table.staged_changes > 0 {
            let seen = table.visible.as_deref().unwrap_or("part of its rows");
            let staged = number(table.staged_changes);
            text.push_str(&format!("      {staged} changes are staged; readers see {seen}\n"));
        }
        if let Some(reason) = &table.reason {
            text.push_str(&format!("      {}\n", plain(reason)));
        }
        if let Some(found) = table.verified.as_ref().and_then(found) {
            text.push_str(&format!("      {found}\n"));
        }
    }
}

/// Tables that somebody should look at come first.
fn urgency(table: &TableStatus) -> u8 {
    let differs = table
        .verified
        .as_ref()
        .is_some_and(|found| found.outcome == Outcome::Different && !found.repaired);
    match table.state {
        State::Stopped => 0,
        State::Gap => 1,
        _ if differs => 2,
        State::Snapshot => 3,
        State::Paused => 4,
        State::Live => 5,
        State::Dropped => 6,
    }
}

fn word(table: &TableStatus) -> &'static str {
    match table.state {
        State::Snapshot => "snapshot",
        State::Live if table.staged_changes > 0 => "staged",
        State::Live => "live",
        State::Paused => "paused",
        State::Stopped => "stopped",
        State::Gap => "gap",
        State::Dropped => "dropped",
    }
}

fn colour(table: &TableStatus) -> Style {
    match word(table) {
        "live" => Style::new().green(),
        "stopped" | "gap" => Style::new().red().bold(),
        _ => Style::new().yellow(),
    }
}

fn cells(name: &str, table: &TableStatus, now: i64) -> Cells {
    [
        plain(name),
        word(table).to_owned(),
        number(table.rows),
        number(table.files as u64),
        size(table.bytes),
        table.amplification.map_or_else(|| "–".to_owned(), |times| format!("{times:.1}")),
        if table.version < 0 { "–".to_owned() } else { table.version.to_string() },
        table.verified.as_ref().map_or_else(|| "never".to_owned(), |found| verified(found, now)),
    ]
}

/// How the newest verification ended, and when.
fn verified(found: &Verified, now: i64) -> String {
    let ago = ago(now - found.at_ms);
    match found.outcome {
        Outcome::Equal => format!("equal, {ago}"),
        Outcome::Skipped => format!("not compared, {ago}"),
        Outcome::Different => {
            let more = if found.more { " or more" } else { "" };
            let repaired = if found.repaired { ", repaired" } else { "" };
            format!("{}{more} differ{repaired}, {ago}", number(found.differing()))
        }
    }
}

/// What else is to be said of it.
fn found(found: &Verified) -> Option<String> {
    match found.outcome {
        Outcome::Equal => None,
        Outcome::Skipped => {
            found.reason.as_ref().map(|why| format!("not compared: {}", plain(why)))
        }
        Outcome::Different => Some(format!(
            "of {} rows {} were missing, {} only in the lake, {} had other values",
            number(found.rows),
            number(found.missing),
            number(found.extra),
            number(found.changed)
        )),
    }
}

/// The cells side by side: text to the left, numbers to the right.
fn line(cells: &Cells, widths: &Widths, table: Option<&TableStatus>) -> String {
    let mut line = String::new();
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let blank = " ".repeat(width.saturating_sub(measure_text_width(cell)));
        let cell = match table.filter(|_| column == 1) {
            Some(table) => colour(table).apply_to(cell).to_string(),
            None => cell.clone(),
        };
        let is_text = column < 2 || column + 1 == HEADS.len();
        let cell = if is_text { cell + &blank } else { blank + &cell };
        line.push_str(&cell);
        line.push_str("  ");
    }
    line.trim_end().to_owned()
}

/// A text of the source's, which may hold anything, as one line that does nothing to a terminal.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => plain.extend(character.escape_default()),
            false => plain.push(character),
        }
    }
    plain
}

/// With a comma between thousands.
fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn size(bytes: u64) -> String {
    let mut size = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if size < 999.5 {
            let digits = usize::from(unit != "B" && size < 9.95);
            return format!("{size:.digits$} {unit}");
        }
        size /= 1000.0;
    }
    format!("{size:.1} TB")
}

fn ago(millis: i64) -> String {
    let seconds = millis.max(0) / 1_000;
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7_200 => format!("{} min ago", seconds / 60),
        7_200..172_800 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;

    fn table(state: State, rows: u64, reason: Option<&str>) -> TableStatus {
        TableStatus {
            state,
            held: "0/1".to_owned(),
            staged_changes: 0,
            visible: None,
            reason: reason.map(str::to_owned),
            path: "shop/public/t".to_owned(),
            rows,
            files: 2,
            bytes: 1_234_567,
            version: 7,
            amplification: None,
            verified: None,
        }
    }

    #[test]
    fn columns_stand_below_one_another_and_the_stopped_table_comes_first() {
        let of = |outcome, at_ms| Verified::of(outcome, at_ms, Duration::ZERO);
        let verified =
            |found| TableStatus { verified: Some(found), ..table(State::Live, 1_234_567, None) };
        let differs = Verified { extra: 10_000, more: true, rows: 7, ..of(Outcome::Different, 0) };
        let tables = BTreeMap::from([
            ("public.a".to_owned(), verified(of(Outcome::Equal, 1_500))),
            (
                "public.b".to_owned(),
                TableStatus {
                    amplification: Some(12.34),
                    ..verified(Verified::skipped(4_500, "no key".into()))
                },
            ),
            ("public.c".to_owned(), verified(differs)),
            ("public.zebras\u{1b}[2J".to_owned(), table(State::Stopped, 0, Some("no\nkey"))),
        ]);
        let source =
            SourceStatus { epoch: 3, to: "0/16B3748".to_owned(), written_ms: 1_000, tables };
        let text = text(&Sources::from([("shop".to_owned(), source)]), 4_500);
        let expected = "\
shop  epoch 3, 3 s ago, at 0/16B3748
  TABLE                   STATE         ROWS  FILES    SIZE  WRITE ×  VERSION  VERIFIED
  public.zebras\\u{1b}[2J  stopped          0      2  1.2 MB        –        7  never
      no\\nkey
  public.c                live     1,234,567      2  1.2 MB        –        7  10,000 or more differ, 4 s ago
      of 7 rows 0 were missing, 10,000 only in the lake, 0 had other values
  public.a                live     1,234,567      2  1.2 MB        –        7  equal, 3 s ago
  public.b                live     1,234,567      2  1.2 MB     12.3        7  not compared, 0 s ago
      not compared: no key
";
        assert_eq!(console::strip_ansi_codes(&text), expected);
    }

    #[test]
    fn sizes_and_ages_read_well() {
        let sizes = [0, 999, 1_000, 9_949, 9_951, 999_499, 999_500, 5_000_000_000_000];
        let sizes = sizes.map(size);
        assert_eq!(
            sizes,
            ["0 B", "999 B", "1.0 kB", "9.9 kB", "10 kB", "999 kB", "1.0 MB", "5.0 TB"]
        );
        assert_eq!(
            [0, 119_999, 120_000, 7_200_000].map(ago),
            ["0 s ago", "119 s ago", "2 min ago", "2 h ago"]
        );
        assert_eq!([0, 999, 1_000, 12_345_678].map(number), ["0", "999", "1,000", "12,345,678"]);
    }
}
