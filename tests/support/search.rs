//! Looks for what must not be seen, in whatever was.

use arrow_json::LineDelimitedWriter;
use arrow_schema::DataType;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::{Context, Res};

/// Something that nobody may see, made up for one test.
#[derive(Clone)]
pub struct Secret {
    what: &'static str,
    pub text: String,
    /// It is looked for in everything but the rows of the lake.
    in_rows: bool,
}

/// The halves of a secret have so many letters; between them stands what has to be encoded in
/// addresses.
const HALF: usize = 12;

impl Secret {
    pub fn new(what: &'static str) -> Secret {
        let half = || (0..HALF).map(|_| fastrand::alphanumeric()).collect::<String>();
        let text = format!("{}/@:+%& {}", half(), half());
        Secret { what, text, in_rows: false }
    }

    /// One of letters and digits only.
    pub fn plain(what: &'static str) -> Secret {
        let secret = Secret::new(what);
        let text = secret.halves().concat();
        Secret { text, ..secret }
    }

    /// A value that the rows of the lake may hold, and nothing else.
    pub fn of_rows(what: &'static str) -> Secret {
        Secret { in_rows: true, ..Secret::new(what) }
    }

    fn halves(&self) -> [String; 2] {
        let of = |at: usize| self.text[at..at + HALF].to_owned();
        [of(0), of(self.text.len() - HALF)]
    }

    /// What is looked for. Letters and digits stay as they are in an address and in JSON, so a half
    /// finds those forms, too, and one that was cut off.
    fn forms(&self) -> Vec<String> {
        let mut forms = Vec::new();
        for half in self.halves() {
            for before in 0..3 {
                let found = base64(before, half.as_bytes());
                forms.push(found.replace('+', "-").replace('/', "_"));
                forms.push(found);
            }
            forms.push(half.bytes().map(|byte| format!("{byte:02x}")).collect());
            forms.push(half);
        }
        forms
    }
}

/// The part of a base64 text that `bytes` alone decide, where so many other bytes stand before them.
fn base64(before: usize, bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let first = [0, 4, 2][before];
    let bits: Vec<bool> =
        bytes.iter().flat_map(|byte| (0..8).map(move |at| byte >> (7 - at) & 1 == 1)).collect();
    let digit = |six: &[bool]| {
        let at = six.iter().fold(0, |number, bit| number << 1 | usize::from(*bit));
        char::from(DIGITS[at])
    };
    bits[first..].chunks_exact(6).map(digit).collect()
}

/// Where a text was seen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Told,
    Rows,
}

/// All that was seen.
#[derive(Default)]
pub struct Seen(Vec<(Place, String, String)>);

impl Seen {
    /// What anybody may read: outputs, logs, pages, files.
    pub fn told(&mut self, name: impl Into<String>, text: impl Into<String>) {
        self.0.push((Place::Told, name.into(), text.into()));
    }

    /// A file of the lake: as it is, and the columns of a data file as they are read.
    pub fn file(&mut self, path: &str, bytes: &[u8]) -> Res<()> {
        let ours = path.contains("/_lakeward/") && path.ends_with(".json");
        let place = if ours { Place::Told } else { Place::Rows };
        if path.ends_with(".parquet") {
            self.0.push((place, format!("the rows of {path}"), rows(bytes).context(path)?));
        }
        self.0.push((place, path.to_owned(), String::from_utf8_lossy(bytes).into_owned()));
        Ok(())
    }

    fn of(&self, wanted: Place) -> impl Iterator<Item = &str> {
        let of = self.0.iter().filter(move |(place, ..)| *place == wanted);
        of.map(|(_, _, text)| text.as_str())
    }

    /// Whether anything that was told says this.
    pub fn says(&self, part: &str) -> bool {
        self.of(Place::Told).any(|text| text.contains(part))
    }

    /// Whether the rows of the lake hold this: a search that can't find is worth nothing.
    pub fn rows_hold(&self, secret: &Secret) -> bool {
        self.of(Place::Rows).any(|text| text.contains(&secret.text))
    }

    /// Says where any of the secrets is.
    pub fn search(&self, secrets: &[&Secret]) -> Res<()> {
        let mut found = Vec::new();
        for secret in secrets {
            for form in secret.forms() {
                for (place, name, text) in &self.0 {
                    let Some(at) = text.find(&form) else { continue };
                    if secret.in_rows && *place == Place::Rows {
                        continue;
                    }
                    let before: String = text[..at].chars().rev().take(200).collect();
                    let before: String = before.chars().rev().collect();
                    found.push(format!("{}, in {name}: …{before}{form}…", secret.what));
                }
            }
        }
        match found.is_empty() {
            true => Ok(()),
            false => Err(format!("seen {} times:\n  {}", found.len(), found.join("\n  "))),
        }
    }
}

/// All rows of a Parquet file, a JSON object a line.
fn rows(bytes: &[u8]) -> Res<String> {
    let file = ParquetRecordBatchReaderBuilder::try_new(Bytes::copy_from_slice(bytes));
    let mut writer = LineDelimitedWriter::new(Vec::new());
    for batch in file.context("its footer")?.build().context("its rows")? {
        let batch = batch.context("its rows")?;
        // A time with a zone hides nothing, and has no text here.
        let shown =
            |at: &usize| !matches!(batch.column(*at).data_type(), DataType::Timestamp(_, Some(_)));
        let columns: Vec<_> = (0..batch.num_columns()).filter(shown).collect();
        let batch = batch.project(&columns).context("its rows")?;
        writer.write(&batch).context("its rows")?;
    }
    writer.finish().context("its rows")?;
    Ok(String::from_utf8_lossy(&writer.into_inner()).into_owned())
}
