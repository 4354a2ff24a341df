//! A store in memory as a process of the simulation sees it: slow, lossy, and out of reach while
//! the process is frozen.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use lakeward_connectors::scripted::Chance;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::time::sleep;

use super::process::Gate;

/// How often what happens to a request; chances from 0 to 1.
#[derive(Debug, Clone, Copy, Default)]
pub struct StoreFaults {
    /// It fails and does nothing.
    pub before: f64,
    /// It works, and the answer is an error.
    pub after: f64,
    /// The answer is an error, and it works later: perhaps when its sender is long gone.
    pub late: f64,
    /// How long a late request is under way at most, in milliseconds.
    pub late_up_to: u64,
    /// It takes time before it acts and before it answers.
    pub slow: f64,
    /// How much at most, in milliseconds.
    pub slow_up_to: u64,
}

enum Fate {
    None,
    Before,
    After,
    Late(Duration),
    Slow(Duration, Duration),
}

/// What all processes share.
#[derive(Debug)]
pub struct Disk {
    /// The objects, for those who look without faults.
    pub objects: Arc<InMemory>,
    faults: Mutex<(StoreFaults, Chance)>,
}

impl Disk {
    pub fn new(faults: StoreFaults, seed: u64) -> Arc<Self> {
        let faults = Mutex::new((faults, Chance::new(seed)));
        Arc::new(Self { objects: Arc::new(InMemory::new()), faults })
    }

    /// Changes what goes wrong from here on.
    pub fn set(&self, faults: StoreFaults) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).0 = faults;
    }

    fn fate(&self) -> Fate {
        let mut guard = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let (faults, chance) = &mut *guard;
        let mut up_to = |most: u64| Duration::from_millis(chance.below(most + 1));
        if faults.slow == 0.0 && faults.before == 0.0 {
            return Fate::None;
        }
        let (early, late, long) =
            (up_to(faults.slow_up_to), up_to(faults.slow_up_to), up_to(faults.late_up_to));
        if chance.happens(faults.before) {
            Fate::Before
        } else if chance.happens(faults.after) {
            Fate::After
        } else if chance.happens(faults.late) {
            Fate::Late(long)
        } else if chance.happens(faults.slow) {
            Fate::Slow(early, late)
        } else {
            Fate::None
        }
    }
}

/// The store of one process.
#[derive(Debug, Clone)]
pub struct SimStore {
    disk: Arc<Disk>,
    gate: Arc<Gate>,
}

fn lost() -> Error {
    Error::Generic { store: "simulated", source: "no answer".into() }
}

impl SimStore {
    pub fn new(disk: &Arc<Disk>, gate: &Arc<Gate>) -> Self {
        Self { disk: disk.clone(), gate: gate.clone() }
    }

    /// A request that reads.
    async fn read<T>(&self, action: impl Future<Output = Result<T>>) -> Result<T> {
        self.gate.pass().await;
        let result = match self.disk.fate() {
            Fate::None => action.await,
            Fate::Slow(early, _) => {
                sleep(early).await;
                action.await
            }
            Fate::Before | Fate::After | Fate::Late(_) => Err(lost()),
        };
        self.gate.pass().await;
        result
    }

    /// A request that writes. One that is under way arrives, whatever becomes of its sender.
    async fn write<T, F>(&self, action: F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.gate.pass().await;
        let result = match self.disk.fate() {
            Fate::None => action.await,
            Fate::Before => Err(lost()),
            Fate::After => action.await.and_then(|_| Err(lost())),
            Fate::Late(long) => {
                drop(tokio::spawn(sleep(long).then(|()| action)));
                Err(lost())
            }
            Fate::Slow(early, late) => {
                let sent = tokio::spawn(sleep(early).then(|()| action));
                let result = sent.await.unwrap_or_else(|_| Err(lost()));
                sleep(late).await;
                result
            }
        };
        self.gate.pass().await;
        result
    }
}

impl fmt::Display for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a simulated store")
    }
}

#[async_trait]
impl ObjectStore for SimStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let (objects, location) = (self.disk.objects.clone(), location.clone());
        self.write(async move { objects.put_opts(&location, payload, options).await }).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.read(self.disk.objects.put_multipart_opts(location, options)).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.read(self.disk.objects.get_opts(location, options)).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.read(self.disk.objects.get_ranges(location, ranges)).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let gate = self.gate.clone();
        let locations = locations.then(move |location| {
            let gate = gate.clone();
            async move {
                gate.pass().await;
                location
            }
        });
        self.disk.objects.delete_stream(locations.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned());
        let objects = self.disk.objects.clone();
        let listed = async move {
            // The listing is of the moment at which the request acts.
            let result = store
                .read(async { Ok(objects.list(prefix.as_ref()).collect::<Vec<_>>().await) })
                .await;
            futures::stream::iter(result.unwrap_or_else(|error| vec![Err(error)]))
        };
        listed.flatten_stream().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.read(self.disk.objects.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.disk.objects.copy_opts(from, to, options).await
    }
}
