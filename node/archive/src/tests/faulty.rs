//! A store in memory with injected faults: unreachable, half-written objects, writes that arrive without a response,
//! listings that lag, calls that hang.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use futures_util::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    memory::InMemory, path::Path,
};

/// The faults that are injected now.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults {
    /// Every call fails.
    pub away: bool,
    /// This many writes store the first half of the object and fail.
    pub half_written: u32,
    /// This many writes arrive and fail.
    pub unanswered: u32,
    /// Listings lack the objects written last.
    pub hidden: usize,
    /// Writes never return.
    pub hangs: bool,
    /// Objects whose names contain this text cannot be removed.
    pub locked: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Faulty {
    store: Arc<InMemory>,
    faults: Arc<Mutex<Faults>>,
    written: Arc<Mutex<Vec<Path>>>,
}

impl Faulty {
    pub(super) fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names of all objects, in the order written.
    pub(super) fn written(&self) -> Vec<Path> {
        self.written.lock().unwrap().clone()
    }

    /// Replaces the bytes of an object.
    pub(super) async fn overwrite(&self, path: &Path, bytes: Vec<u8>) {
        self.store.put(path, bytes.into()).await.unwrap();
    }

    pub(super) async fn bytes(&self, path: &Path) -> Vec<u8> {
        self.store.get(path).await.unwrap().bytes().await.unwrap().to_vec()
    }

    pub(super) async fn remove(&self, path: &Path) {
        self.store.delete(path).await.unwrap();
    }

    fn check(&self) -> Result<()> {
        if self.faults().away { Err(failure()) } else { Ok(()) }
    }

    fn shown(&self, path: &Path) -> bool {
        let written = self.written.lock().unwrap();
        let hidden = written.len().saturating_sub(self.faults().hidden);
        !written.get(hidden..).unwrap_or_default().contains(path)
    }
}

fn failure() -> object_store::Error {
    object_store::Error::Generic { store: "faulty", source: "the store is away".into() }
}

fn take(count: &mut u32) -> bool {
    let is_due = *count > 0;
    *count = count.saturating_sub(1);
    is_due
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.check()?;
        assert_eq!(options.mode, PutMode::Create, "nothing is ever overwritten");
        let (half, unanswered, hangs) = {
            let mut faults = self.faults();
            (take(&mut faults.half_written), take(&mut faults.unanswered), faults.hangs)
        };
        if hangs {
            std::future::pending::<()>().await;
        }
        let bytes: Vec<u8> = payload.iter().flat_map(|part| part.to_vec()).collect();
        let bytes = if half { bytes[..bytes.len() / 2].to_vec() } else { bytes };
        let put = self.store.put_opts(path, bytes.into(), options).await?;
        self.written.lock().unwrap().push(path.clone());
        if half || unanswered { Err(failure()) } else { Ok(put) }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.check()?;
        self.written.lock().unwrap().push(path.clone());
        self.store.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.check()?;
        self.store.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let locked = self.faults().locked.clone();
        let judged = paths.map(move |path| {
            let path = path?;
            match &locked {
                Some(part) if path.as_ref().contains(part.as_str()) => {
                    Err(object_store::Error::Generic { store: "faulty", source: "under a lock".into() })
                }
                _ => Ok(path),
            }
        });
        self.store.delete_stream(judged.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        if let Err(error) = self.check() {
            return futures_util::stream::once(async { Err(error) }).boxed();
        }
        let this = self.clone();
        self.store
            .list(prefix)
            .try_filter(move |found| std::future::ready(this.shown(&found.location)))
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.check()?;
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}
