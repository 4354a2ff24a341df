//! `[lake]`: where tables go, and what they may take.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use lakeward_connectors::secret::Secret;
use toml::de::DeTable;

use super::reader::Reader;
use crate::delta::store::RETENTION;
use crate::delta::{Compression, LakeOptions, S3Options};

/// `[lake]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LakeConfig {
    /// A path, `file://` or `s3://`.
    pub url: String,
    /// Credentials and endpoint for `s3://`; what is absent comes from the `AWS_*` environment.
    pub s3: BTreeMap<String, Secret>,
    /// The longest a change waits before it is committed.
    pub flush_interval: Duration,
    /// The budget for buffers, in bytes.
    pub memory: usize,
    /// Where caches are.
    pub state_dir: PathBuf,
    /// How data files are compressed.
    pub compression: Compression,
    /// For how long replaced files are kept.
    pub retention: Duration,
}

impl LakeConfig {
    /// What the store is opened with.
    pub fn options(&self) -> LakeOptions {
        let text = |key: &str| self.s3.get(key).map(|value| value.reveal().to_owned());
        LakeOptions {
            url: self.url.clone(),
            s3: S3Options {
                endpoint: text("endpoint"),
                region: text("region"),
                access_key_id: text("access_key_id"),
                secret_access_key: text("secret_access_key"),
                allow_http: text("allow_http").is_some_and(|value| value == "true"),
                ..S3Options::default()
            },
            compression: self.compression,
            retention: Some(self.retention),
        }
    }
}

impl Reader<'_> {
    pub(super) fn lake(&mut self, table: &DeTable<'_>) -> LakeConfig {
        let known = [
            "url",
            "flush_interval",
            "memory",
            "state_dir",
            "compression",
            "retention",
            "mask_key",
            "s3",
        ];
        self.only("[lake]", table, &known);
        let mut lake = LakeConfig {
            url: "./lake".to_owned(),
            s3: BTreeMap::new(),
            flush_interval: Duration::from_secs(5),
            memory: 256 << 20,
            state_dir: PathBuf::from("./state"),
            compression: Compression::default(),
            retention: RETENTION,
        };
        if let Some(url) = table.get("url").and_then(|item| self.text("lake.url", item)) {
            lake.url = url;
        }
        if let Some(item) = table.get("flush_interval") {
            let wanted = "a time such as \"500ms\", \"5s\" or \"1m\"";
            lake.flush_interval =
                self.parsed("lake.flush_interval", item, wanted, duration).unwrap_or_default();
        }
        if let Some(item) = table.get("memory") {
            let wanted = "a size of at least 64MiB such as \"256MiB\"";
            let parse = |text: &str| size(text).filter(|size| *size >= 64 << 20);
            lake.memory = self.parsed("lake.memory", item, wanted, parse).unwrap_or_default();
        }
        if let Some(dir) = table.get("state_dir").and_then(|i| self.text("lake.state_dir", i)) {
            lake.state_dir = dir.into();
        }
        if let Some(item) = table.get("retention") {
            let wanted = "a time such as \"7d\" or \"12h\"";
            lake.retention =
                self.parsed("lake.retention", item, wanted, duration).unwrap_or(RETENTION);
        }
        if let Some(item) = table.get("compression") {
            let parse = |text: &str| match text {
                "snappy" => Some(Compression::Snappy),
                "zstd" => Some(Compression::Zstd),
                _ => None,
            };
            let wanted = "\"snappy\" or \"zstd\"";
            lake.compression =
                self.parsed("lake.compression", item, wanted, parse).unwrap_or_default();
        }
        if let Some(s3) = table.get("s3").and_then(|item| self.table("lake.s3", item)) {
            let known = ["endpoint", "region", "access_key_id", "secret_access_key", "allow_http"];
            self.only("[lake.s3]", s3, &known);
            for (key, item) in s3 {
                let name = key.get_ref().to_string();
                let value = match item.get_ref().as_bool() {
                    Some(value) => Some(Secret::new(value.to_string())),
                    None => self.secret(&format!("lake.s3.{name}"), item),
                };
                lake.s3.extend(value.map(|value| (name, value)));
            }
        }
        lake
    }
}

/// `500ms`, `5s`, `2m`, `1h`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().ok()?;
    let factor = match text[digits..].trim() {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(factor)?)).filter(|d| !d.is_zero())
}

/// `256MiB`, `1GiB`, `500MB`; bytes.
pub(super) fn size(text: &str) -> Option<usize> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: usize = text[..digits].parse().ok()?;
    let factor = match text[digits..].trim() {
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    };
    number.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_have_units() {
        assert_eq!(size("256MiB"), Some(256 << 20));
        assert_eq!(
            (size("12"), size("MiB"), duration("0s"), duration("5")),
            (None, None, None, None)
        );
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
    }
}
