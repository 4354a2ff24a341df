//! Reading one value of the file after the other, and noting what is wrong with each.

use lakeward_connectors::secret::Secret;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Fault;
use crate::shape::MaskKey;

pub(super) fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
}

pub(super) type Item<'a, 'd> = &'a Spanned<DeValue<'d>>;

pub(super) struct Reader<'t> {
    pub text: &'t str,
    pub variable: &'t dyn Fn(&str) -> Option<String>,
    /// The key of hashes, once `[lake]` has been read.
    pub mask_key: Option<MaskKey>,
    pub faults: Vec<Fault>,
}

impl Reader<'_> {
    pub(super) fn fault(&mut self, at: usize, message: impl Into<String>) {
        self.faults.push(Fault { line: line_of(self.text, at), message: message.into() });
    }

    /// Faults every key of `table` that is not in `known`.
    pub(super) fn only(&mut self, place: &str, table: &DeTable<'_>, known: &[&str]) {
        for key in table.keys() {
            let name: &str = key.get_ref();
            if !known.contains(&name) {
                let near = known.iter().find(|known| is_near(name, known));
                let hint = match near {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("known here: {}", known.join(", ")),
                };
                self.fault(key.span().start, format!("unknown key `{name}` in {place}; {hint}"));
            }
        }
    }

    pub(super) fn table<'a, 'd>(
        &mut self,
        place: &str,
        item: Item<'a, 'd>,
    ) -> Option<&'a DeTable<'d>> {
        let table = item.get_ref().as_table();
        if table.is_none() {
            self.fault(item.span().start, format!("{place} is a table: write it as [{place}]"));
        }
        table
    }

    pub(super) fn text(&mut self, place: &str, item: Item<'_, '_>) -> Option<String> {
        let text = item.get_ref().as_str().map(str::to_owned);
        if text.is_none() {
            self.fault(item.span().start, format!("{place} is text: write it in quotes"));
        }
        text
    }

    pub(super) fn texts(&mut self, place: &str, item: Item<'_, '_>) -> Vec<(usize, String)> {
        let Some(items) = item.get_ref().as_array() else {
            self.fault(item.span().start, format!("{place} is a list: write it as [\"…\", \"…\"]"));
            return Vec::new();
        };
        items.iter().filter_map(|item| Some((item.span().start, self.text(place, item)?))).collect()
    }

    /// Text in which `${NAME}` stands for a variable, and which may be `file:PATH` as a whole.
    /// Inside a URL a variable is percent-encoded, so that a password may hold any character.
    pub(super) fn secret(&mut self, place: &str, item: Item<'_, '_>) -> Option<Secret> {
        let at = item.span().start;
        let text = self.text(place, item)?;
        if let Some(path) = text.strip_prefix("file:") {
            return match std::fs::read_to_string(path) {
                Ok(text) => Some(Secret::new(text.trim_end_matches(['\n', '\r']))),
                Err(error) => {
                    self.fault(at, format!("{place}: the file {path} can't be read: {error}"));
                    None
                }
            };
        }
        let mut out = String::new();
        let mut rest = text.as_str();
        while let Some(start) = rest.find("${") {
            let Some(end) = rest[start..].find('}').map(|end| start + end) else {
                self.fault(at, format!("{place}: a `${{` without its `}}`"));
                return None;
            };
            let name = &rest[start + 2..end];
            let Some(value) = (self.variable)(name) else {
                let message =
                    format!("{place}: the variable {name} is not set; set it, or write file:PATH");
                self.fault(at, message);
                return None;
            };
            out.push_str(&rest[..start]);
            let whole = text.len() == end + 1 - start;
            match text.contains("://") && !whole {
                true => out.extend(
                    url::form_urlencoded::byte_serialize(value.as_bytes())
                        .map(|part| part.replace('+', "%20")),
                ),
                false => out.push_str(&value),
            }
            rest = &rest[end + 1..];
        }
        out.push_str(rest);
        Some(Secret::new(out))
    }

    pub(super) fn parsed<T>(
        &mut self,
        place: &str,
        item: Item<'_, '_>,
        wanted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(place, item)?;
        let parsed = parse(&text);
        if parsed.is_none() {
            self.fault(item.span().start, format!("{place}: '{text}' is not {wanted}"));
        }
        parsed
    }
}

/// Whether two names differ by one slip: a letter more, less or other, or two swapped.
fn is_near(a: &str, b: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let same = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[same..], &b[same..]);
    match (a, b) {
        ([_, a @ ..], [_, b @ ..]) if a == b => true,
        ([x, y, a @ ..], [v, w, b @ ..]) if x == w && y == v && a == b => true,
        ([_, a @ ..], b) if a == b => true,
        (a, [_, b @ ..]) if a == b => true,
        _ => false,
    }
}
