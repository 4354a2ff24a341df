//! A store that fails: before it acts, or after, so that its answer is lost.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It works.
    None,
    /// It fails and does nothing.
    Before,
    /// It works, and the answer is an error.
    After,
}

/// A store in memory whose next requests fail as they are told.
#[derive(Debug, Clone, Default)]
pub(super) struct FailingStore {
    inner: Arc<InMemory>,
    faults: Arc<Mutex<VecDeque<Fault>>>,
}

impl FailingStore {
    /// Says what happens to the next requests; after them everything works.
    pub(super) fn plan(&self, faults: impl IntoIterator<Item = Fault>) {
        let mut planned = self.faults.lock().expect("no panic elsewhere");
        planned.clear();
        planned.extend(faults);
    }

    fn next(&self) -> Fault {
        self.faults.lock().expect("no panic elsewhere").pop_front().unwrap_or(Fault::None)
    }

    async fn run<T>(&self, action: impl Future<Output = Result<T>>) -> Result<T> {
        let lost = || Error::Generic { store: "failing", source: "no answer".into() };
        match self.next() {
            Fault::None => action.await,
            Fault::Before => Err(lost()),
            Fault::After => action.await.and_then(|_| Err(lost())),
        }
    }
}

impl fmt::Display for FailingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a store that fails")
    }
}

#[async_trait]
impl ObjectStore for FailingStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.run(self.inner.put_opts(location, payload, options)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.run(self.inner.put_multipart_opts(location, options)).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.run(self.inner.get_opts(location, options)).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.run(self.inner.get_ranges(location, ranges)).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
