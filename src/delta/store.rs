//! The object store under the lake: a handful of verbs over paths relative to the lake's root, and
//! one rule for errors: what the store refuses is an answer, what it doesn't say is
//! [`Unavailable`](lakeward_connectors::ErrorKind::Unavailable).

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use lakeward_connectors::{Error, Result, TableId};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::buffered::BufWriter;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    ClientConfigKey, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig,
};
use url::Url;

use super::index::cache::Cache;
use super::refusal::Discreet;

/// How many objects are deleted at a time.
const DELETES_AT_ONCE: usize = 16;

/// How long one request may take before the store counts as silent.
const REQUEST_TIMEOUT: &str = "30s";
/// How long a connection to the store may take to be made.
const CONNECT_TIMEOUT: &str = "5s";
/// How long a request is tried again within one call, all attempts together.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);
/// Objects up to this size are written with one request, larger ones in parts of it.
const PART_SIZE: usize = 8 << 20;

/// Where the lake is.
#[derive(Debug, Clone, Default)]
pub struct LakeOptions {
    /// A directory, `file:///directory` or `s3://bucket/prefix`.
    pub url: String,
    /// What overrides the environment's `AWS_*`, for `s3://`.
    pub s3: S3Options,
    /// How new data files are compressed.
    pub compression: Compression,
    /// For how long files that a commit has replaced are kept, where the table has no
    /// `delta.deletedFileRetentionDuration`; `None`: [`RETENTION`].
    pub retention: Option<Duration>,
}

/// Delta's own default.
pub const RETENTION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How the pages of data files are compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compression {
    /// Quick to write and to read, and known to every reader.
    #[default]
    Snappy,
    /// Smaller files, for about a fifth more of processor time.
    Zstd,
}

/// Settings of an S3 store; what is `None` comes from the environment's `AWS_*`.
#[derive(Clone, Default)]
pub struct S3Options {
    /// The store's URL, for stores other than Amazon's.
    pub endpoint: Option<String>,
    /// The bucket's region.
    pub region: Option<String>,
    /// The access key's name.
    pub access_key_id: Option<String>,
    /// The access key's secret.
    pub secret_access_key: Option<String>,
    /// The token of temporary credentials.
    pub session_token: Option<String>,
    /// Whether `http://` endpoints are allowed.
    pub allow_http: bool,
    /// Whether the bucket is part of the host's name (`false`: of the path).
    pub virtual_hosted: Option<bool>,
}

/// Secrets stay out of logs.
impl fmt::Debug for S3Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Options")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

/// What became of [`Lake::create`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// The object is there and holds the bytes.
    Yes,
    /// The store says that somebody was first. It may have been an attempt of this very call whose
    /// answer was lost, and some stores say so while another writer is still at it: read the
    /// object, compare, and try again when there is none.
    Exists,
}

/// An object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its path, relative to the lake.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was last written, in milliseconds since 1970, by the store's clock.
    pub modified: i64,
}

/// An opened lake. Cheap to clone.
#[derive(Clone)]
pub struct Lake {
    store: Arc<dyn ObjectStore>,
    root: Path,
    url: Arc<str>,
    compression: Compression,
    retention: Duration,
    cache: Cache,
}

impl fmt::Debug for Lake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lake").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Lake {
    /// Opens the lake; no request is made.
    ///
    /// # Errors
    /// [`Config`](lakeward_connectors::ErrorKind::Config) when the URL or a setting is unusable.
    pub fn open(options: &LakeOptions) -> Result<Self> {
        let retention = options.retention.unwrap_or(RETENTION);
        Ok(Self { compression: options.compression, retention, ..Self::at(options)? })
    }

    /// For how long files that a commit has replaced are kept.
    pub fn retention(&self) -> Duration {
        self.retention
    }

    /// How new data files are compressed.
    pub(super) fn compression(&self) -> Compression {
        self.compression
    }

    fn at(options: &LakeOptions) -> Result<Self> {
        match Url::parse(&options.url) {
            Ok(url) if matches!(url.scheme(), "s3" | "s3a") => Self::s3(&url, &options.s3),
            Ok(url) if url.scheme() == "file" => {
                let path = url.to_file_path().map_err(|()| {
                    Error::config("the lake's URL names no local directory").with("url", &url)
                })?;
                Self::local(path)
            }
            // A one-letter scheme is a drive.
            Ok(url) if url.scheme().len() > 1 => {
                Err(Error::config("the lake's URL has a scheme that is not supported")
                    .with("scheme", url.scheme())
                    .remedy("use a directory, file:// or s3://"))
            }
            _ if options.url.is_empty() => Err(Error::config("the lake's URL is empty")),
            _ => Self::local(PathBuf::from(&options.url)),
        }
    }

    /// An empty lake in memory.
    pub fn memory() -> Self {
        Self::with_store(Arc::new(InMemory::new()))
    }

    /// The lake at the root of `store`.
    pub fn with_store(store: Arc<dyn ObjectStore>) -> Self {
        let url = store.to_string().into();
        Self {
            store,
            root: Path::default(),
            url,
            compression: Compression::default(),
            retention: RETENTION,
            cache: Cache::default(),
        }
    }

    /// The same lake with another place for what this process keeps beside it.
    #[must_use]
    pub fn with_cache(self, cache: Cache) -> Self {
        Self { cache, ..self }
    }

    /// Where this process keeps what it would have to read from the lake again.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    fn local(directory: PathBuf) -> Result<Self> {
        let fault = |error: Box<dyn std::error::Error + Send + Sync>| {
            Error::config("the lake's directory can't be used")
                .with("directory", directory.display())
                .caused_by(error)
        };
        std::fs::create_dir_all(&directory).map_err(|error| fault(error.into()))?;
        let store =
            LocalFileSystem::new_with_prefix(&directory).map_err(|error| fault(error.into()))?;
        let url = directory.display().to_string().into();
        Ok(Self { url, ..Self::with_store(Arc::new(store.with_fsync(true))) })
    }

    fn s3(url: &Url, options: &S3Options) -> Result<Self> {
        // reqwest is built without a provider of its own; an error means that one is installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let fault = |error: object_store::Error| {
            Error::config("the S3 store can't be used").with("url", url).caused_by(error)
        };
        let bucket = url.host_str().ok_or_else(|| {
            Error::config("the lake's URL names no bucket").remedy("write s3://bucket/prefix")
        })?;
        let client = AmazonS3ConfigKey::Client;
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .with_http_connector(Discreet::default())
            // One by one: the environment's other options stay.
            .with_config(client(ClientConfigKey::Timeout), REQUEST_TIMEOUT)
            .with_config(client(ClientConfigKey::ConnectTimeout), CONNECT_TIMEOUT)
            .with_retry(RetryConfig {
                max_retries: 5,
                retry_timeout: RETRY_TIMEOUT,
                ..RetryConfig::default()
            });
        let settings = [
            (AmazonS3ConfigKey::Endpoint, &options.endpoint),
            (AmazonS3ConfigKey::Region, &options.region),
            (AmazonS3ConfigKey::AccessKeyId, &options.access_key_id),
            (AmazonS3ConfigKey::SecretAccessKey, &options.secret_access_key),
            (AmazonS3ConfigKey::Token, &options.session_token),
        ];
        for (key, value) in settings {
            if let Some(value) = value {
                builder = builder.with_config(key, value);
            }
        }
        let http = options.allow_http
            || options.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
        if http {
            builder = builder.with_config(client(ClientConfigKey::AllowHttp), "true");
        }
        if let Some(virtual_hosted) = options.virtual_hosted {
            builder = builder.with_virtual_hosted_style_request(virtual_hosted);
        }
        let store = builder.build().map_err(fault)?;
        let root = Path::from_url_path(url.path()).map_err(|error| {
            Error::config("the lake's URL has an unusable path").caused_by(error)
        })?;
        Ok(Self { root, url: url.as_str().into(), ..Self::with_store(Arc::new(store)) })
    }

    /// Where the lake is, as configured; holds no secret.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether the lake can be read, and as far as that shows without a write, written.
    ///
    /// # Errors
    /// What keeps it from being used.
    pub async fn check(&self) -> Result<()> {
        let directory = Url::parse(&self.url).ok().filter(|url| url.scheme() == "file");
        if let Some(directory) = directory.and_then(|url| url.to_file_path().ok()) {
            let above = directory.ancestors().find_map(|at| Some((at, at.metadata().ok()?)));
            if let Some((at, found)) = above
                && (!found.is_dir() || found.permissions().readonly())
            {
                return Err(Error::config("the lake's directory can't be written")
                    .with("path", at.display())
                    .remedy("make it a directory that this user may write to"));
            }
        }
        self.list("_lakeward").await.map(drop)
    }

    /// The bytes of an object, if there is one.
    pub async fn get(&self, path: &str) -> Result<Option<Bytes>> {
        let location = self.locate(path)?;
        let result = match self.store.get(&location).await {
            Ok(found) => found.bytes().await,
            Err(error) => Err(error),
        };
        match result {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(fault("read", path, error)),
        }
    }

    /// Whether there is an object.
    pub(super) async fn has(&self, path: &str) -> Result<bool> {
        match self.store.head(&self.locate(path)?).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(fault("look for", path, error)),
        }
    }

    /// Some of the bytes of an object that is there.
    pub async fn get_ranges(&self, path: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let location = self.locate(path)?;
        let result = self.store.get_ranges(&location, ranges).await;
        result.map_err(|error| fault("read", path, error))
    }

    /// Writes an object, over whatever was there.
    pub async fn put(&self, path: &str, bytes: Bytes) -> Result<()> {
        let location = self.locate(path)?;
        let result = self.store.put(&location, PutPayload::from_bytes(bytes)).await;
        result.map(drop).map_err(|error| fault("write", path, error))
    }

    /// Writes an object unless there is one (put-if-absent).
    ///
    /// # Errors
    /// An error says nothing about whether the object is there now.
    pub async fn create(&self, path: &str, bytes: Bytes) -> Result<Created> {
        let location = self.locate(path)?;
        let options = PutOptions::from(PutMode::Create);
        match self.store.put_opts(&location, PutPayload::from_bytes(bytes), options).await {
            Ok(_) => Ok(Created::Yes),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(Created::Exists),
            Err(error) => Err(fault("create", path, error)),
        }
    }

    /// The objects in a directory and everything below it, by path.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        self.list_where(prefix, None, |_| true).await
    }

    /// Those objects in a directory and below whose path, relative to the lake, is above `after`.
    pub async fn list_after(&self, prefix: &str, after: Option<&str>) -> Result<Vec<Listed>> {
        self.list_where(prefix, after, |_| true).await
    }

    /// Those objects in a directory and below that were last modified before `time`, in milliseconds
    /// since 1970. Of the others, however many there are, none is held in memory.
    pub async fn list_old(&self, prefix: &str, time: i64) -> Result<Vec<Listed>> {
        self.list_where(prefix, None, |listed| listed.modified < time).await
    }

    async fn list_where(
        &self,
        prefix: &str,
        after: Option<&str>,
        wanted: impl Fn(&Listed) -> bool + Send,
    ) -> Result<Vec<Listed>> {
        let location = self.locate(prefix)?;
        let stream = match after {
            Some(after) => self.store.list_with_offset(Some(&location), &self.locate(after)?),
            None => self.store.list(Some(&location)),
        };
        let root = self.root.as_ref();
        let listed = stream
            .map_ok(|meta| {
                let path = meta.location.as_ref();
                let relative = path.strip_prefix(root).unwrap_or(path).trim_start_matches('/');
                Listed {
                    path: relative.to_owned(),
                    size: meta.size,
                    modified: meta.last_modified.timestamp_millis(),
                }
            })
            .try_filter(|listed| std::future::ready(wanted(listed)))
            .try_collect::<Vec<_>>()
            .await;
        let mut listed = match listed {
            Ok(listed) => listed,
            Err(object_store::Error::NotFound { .. }) => Vec::new(),
            Err(error) => return Err(fault("list", prefix, error)),
        };
        listed.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(listed)
    }

    /// Deletes an object; that there is none is no error.
    pub async fn delete(&self, path: &str) -> Result<()> {
        match self.store.delete(&self.locate(path)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(fault("delete", path, error)),
        }
    }

    /// Deletes objects, some at a time, and says how many are gone. One that can't be deleted stays
    /// for the next time.
    pub async fn delete_all(&self, paths: Vec<String>) -> usize {
        let deletes = paths.into_iter().map(|path| async move {
            let deleted = self.delete(&path).await;
            if let Err(error) = &deleted {
                tracing::debug!(path, error = error.full(), "a file that is not needed stays");
            }
            usize::from(deleted.is_ok())
        });
        let deletes = futures::stream::iter(deletes.collect::<Vec<_>>());
        deletes.buffer_unordered(DELETES_AT_ONCE).fold(0, |sum, one| async move { sum + one }).await
    }

    /// Deletes objects of which nobody needs to know whether they are gone.
    pub(crate) async fn forget(&self, paths: Vec<String>) {
        for path in paths {
            if let Err(error) = self.delete(&path).await {
                tracing::debug!(path, error = error.full(), "a file that is not needed stays");
            }
        }
    }

    /// A writer of one large object, which is there once the writer has been shut down.
    pub(crate) fn writer(&self, path: &str) -> Result<BufWriter> {
        let location = self.locate(path)?;
        let writer = BufWriter::with_capacity(Arc::clone(&self.store), location, PART_SIZE);
        Ok(writer.with_max_concurrency(2))
    }

    fn locate(&self, path: &str) -> Result<Path> {
        let path = Path::parse(path).map_err(|error| {
            Error::internal("a path is not fit for the store").with("path", path).caused_by(error)
        })?;
        Ok(self.root.parts().chain(path.parts()).collect())
    }
}

fn fault(verb: &str, path: &str, error: object_store::Error) -> Error {
    Error::unavailable(format!("the lake's store failed to {verb} an object"))
        .with("path", path)
        .caused_by(error)
}

/// The path of a table of `source`, relative to the lake: `source/schema/table`.
///
/// Bytes that some store, file system or reader would not take as they are become `~XX`, and so
/// does a leading `.` or `_`, which readers take for hidden. Different tables get different paths.
pub fn table_path(source: &str, table: &TableId) -> String {
    [source, &table.schema, &table.name].map(escape).join("/")
}

fn escape(segment: &str) -> String {
    let mut escaped = String::with_capacity(segment.len());
    for (index, byte) in segment.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric()
            || byte == b'-'
            || (index > 0 && matches!(byte, b'.' | b'_'));
        match plain {
            true => escaped.push(char::from(byte)),
            false => escaped.push_str(&format!("~{byte:02X}")),
        }
    }
    // An empty name would make two paths one.
    if escaped.is_empty() { "~".to_owned() } else { escaped }
}
