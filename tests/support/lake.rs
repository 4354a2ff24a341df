//! The lake as files: which epochs there are, what a table's log says.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as StorePath;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::Value;

use super::postgres::block_on;
use super::{Context, Res, Store, tag, variable};

pub struct Lake {
    pub store: Store,
    pub url: String,
    files: Arc<dyn ObjectStore>,
    prefix: StorePath,
}

impl Lake {
    pub fn new(store: Store, local: &Path, label: &str) -> Res<Lake> {
        match store {
            Store::Local => {
                std::fs::create_dir_all(local).context("the lake's folder")?;
                let files = LocalFileSystem::new_with_prefix(local).context("the lake's folder")?;
                let url = local.to_string_lossy().into_owned();
                let prefix = StorePath::default();
                Ok(Lake { store, url, files: Arc::new(files), prefix })
            }
            Store::S3 => {
                let bucket = variable("LAKEWARD_TEST_S3_BUCKET")?;
                let endpoint = variable("AWS_ENDPOINT_URL")?;
                // Refused when it is installed already, which is as good.
                let _installed = rustls::crypto::ring::default_provider().install_default();
                let files = AmazonS3Builder::new()
                    .with_bucket_name(&bucket)
                    .with_endpoint(endpoint)
                    .with_access_key_id(variable("AWS_ACCESS_KEY_ID")?)
                    .with_secret_access_key(variable("AWS_SECRET_ACCESS_KEY")?)
                    .with_region(variable("AWS_REGION")?)
                    .with_allow_http(true)
                    .build()
                    .context("the S3 store")?;
                let prefix = format!("{}/{}", tag(), label.replace([':', '.'], "_"));
                let url = format!("s3://{bucket}/{prefix}");
                Ok(Lake { store, url, files: Arc::new(files), prefix: StorePath::from(prefix) })
            }
        }
    }

    /// The `[lake.s3]` of the configuration.
    pub fn s3_config(&self) -> Res<Option<String>> {
        if self.store == Store::Local {
            return Ok(None);
        }
        Ok(Some(format!(
            "[lake.s3]\nendpoint = {:?}\nregion = {:?}\naccess_key_id = {:?}\n\
             secret_access_key = {:?}\nallow_http = true\n\n",
            variable("AWS_ENDPOINT_URL")?,
            variable("AWS_REGION")?,
            variable("AWS_ACCESS_KEY_ID")?,
            variable("AWS_SECRET_ACCESS_KEY")?
        )))
    }

    pub fn table_url(&self, source: &str, schema: &str, table: &str) -> String {
        format!("{}/{}/{}/{}", self.url, escaped(source), escaped(schema), escaped(table))
    }

    /// The parts as they are: `Path::join` would write `~` as `%7E`.
    fn path(&self, parts: &[&str]) -> Res<StorePath> {
        let mut path = self.prefix.to_string();
        for part in parts {
            path.push('/');
            path.push_str(part);
        }
        StorePath::parse(&path).context(path)
    }

    /// The files directly under a folder, sorted by name.
    pub fn names(&self, parts: &[&str]) -> Res<Vec<String>> {
        let folder = self.path(parts)?;
        let listed = block_on(self.files.list_with_delimiter(Some(&folder)));
        let listed = listed.context(format!("listing {folder}"))?;
        let names = listed.objects.iter().filter_map(|o| o.location.filename());
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }

    pub fn read(&self, parts: &[&str]) -> Res<Vec<u8>> {
        let path = self.path(parts)?;
        block_on(async { self.files.get(&path).await?.bytes().await })
            .map(|b| b.to_vec())
            .context(format!("reading {path}"))
    }

    /// The newest epoch file of a source: its number and content.
    pub fn newest_epoch(&self, source: &str) -> Res<Option<(u64, Value)>> {
        let folder = ["_lakeward", source, "epochs"];
        let names = self.names(&folder)?;
        let number = |n: &String| n.strip_suffix(".json").and_then(|n| n.parse::<u64>().ok());
        let newest = names.iter().filter_map(|n| number(n).map(|e| (e, n))).max();
        let Some((epoch, name)) = newest else {
            return Ok(None);
        };
        let bytes = self.read(&["_lakeward", source, "epochs", name])?;
        let value = serde_json::from_slice(&bytes).context(format!("epoch file {name}"))?;
        Ok(Some((epoch, value)))
    }

    /// The highest number among the files of a folder: the newest epoch, the newest version.
    pub fn newest(&self, parts: &[&str]) -> Res<u64> {
        let number = |name: &String| name.strip_suffix(".json").and_then(|n| n.parse().ok());
        Ok(self.names(parts)?.iter().filter_map(number).max().unwrap_or_default())
    }

    /// The actions of a table's log, oldest version first (JSON entries only).
    pub fn log(&self, source: &str, schema: &str, table: &str) -> Res<Vec<(u64, Vec<Value>)>> {
        let folder = [source, schema, table, "_delta_log"];
        let mut entries = Vec::new();
        for name in self.names(&folder)? {
            let Some(version) = name.strip_suffix(".json").and_then(|n| n.parse().ok()) else {
                continue;
            };
            let bytes = self.read(&[source, schema, table, "_delta_log", &name])?;
            let text = String::from_utf8(bytes).context(&name)?;
            let actions = text.lines().map(serde_json::from_str).collect::<Result<_, _>>();
            entries.push((version, actions.context(format!("{table}/{name}"))?));
        }
        Ok(entries)
    }

    /// The newest `txn` version per appId in a table's log.
    pub fn txns(&self, source: &str, schema: &str, table: &str) -> Res<BTreeMap<String, u64>> {
        let mut txns = BTreeMap::new();
        for (_, actions) in self.log(source, schema, table)? {
            for txn in actions.iter().filter_map(|a| a.get("txn")) {
                let app = txn["appId"].as_str().ok_or("a txn without appId")?;
                let version = txn["version"].as_u64().ok_or("a txn without version")?;
                txns.insert(app.to_owned(), version);
            }
        }
        Ok(txns)
    }

    /// Every file under the lake's root, with its bytes.
    pub fn everything(&self) -> Res<Vec<(String, Vec<u8>)>> {
        let read = |path: String| {
            let location = StorePath::parse(&path).context(&path)?;
            let bytes = block_on(async { self.files.get(&location).await?.bytes().await });
            Ok((path.clone(), bytes.context(path)?.to_vec()))
        };
        self.files()?.into_iter().map(read).collect()
    }

    /// Every file under the lake's root, for checks that nothing else was written.
    pub fn files(&self) -> Res<Vec<String>> {
        let list = self.files.list(Some(&self.prefix)).map_ok(|o| o.location.to_string());
        block_on(list.try_collect()).context("listing the lake")
    }
}

/// A name as a folder of the lake: bytes outside `[A-Za-z0-9_.-]` and a leading `.` or `_`
/// are written `~XX`.
pub fn escaped(name: &str) -> String {
    let mut out = String::new();
    for (at, byte) in name.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        if plain && !(at == 0 && matches!(byte, b'.' | b'_')) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("~{byte:02X}"));
        }
    }
    out
}
