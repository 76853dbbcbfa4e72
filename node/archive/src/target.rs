//! The storage of objects: a directory or an S3-compatible bucket behind one handle. Every call is bounded in time,
//! size and retries, and nothing is ever overwritten.

use std::{
    fmt::Display,
    future::Future,
    io::{Read as _, Write as _},
    path::{Path as FilePath, PathBuf},
    sync::Arc,
    time::Duration,
};

use conclave_crypto::mac::{Sha256, sha256};
use futures_util::TryStreamExt as _;
use object_store::{
    BackoffConfig, ClientOptions, GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, PutMode,
    PutPayload, RetryConfig, WriteMultipart, aws::AmazonS3Builder, local::LocalFileSystem, path::Path,
};
use tokio::time::timeout;
use url::Url;

use super::{
    ArchiveError,
    names::{self, Object, ObjectKind},
    s3::S3Requests,
};
use conclave_config as config;

/// The time limit of writing one small object, retries included. Longer than a slow second, and shorter than an
/// operator should wait for the error.
const PUT_LIMIT: Duration = Duration::from_secs(20);
/// The time limit of reading one object, or a part of one.
const GET_LIMIT: Duration = Duration::from_mins(1);
/// The time limit of a whole listing: a thousand names for each request.
const LIST_LIMIT: Duration = Duration::from_mins(5);
/// The time limit of uploading a part of a large object.
const PART_LIMIT: Duration = Duration::from_mins(2);
/// The size of a part. An upload needs memory for two parts, and S3's ten thousand parts make 80 GiB, above any
/// snapshot.
const PART_BYTES: usize = 8 * 1024 * 1024;
/// Parts that are uploaded at once.
const PARTS_AT_ONCE: usize = 2;
/// The most objects of one listing: one a second for a week, three times over.
const MAX_LISTED: usize = 2_000_000;
/// Further attempts at one request, and the time for all of them. If they fail, the next round tries again.
const RETRIES: usize = 3;
const RETRY_LIMIT: Duration = Duration::from_secs(10);
const MAX_BACKOFF: Duration = Duration::from_secs(2);
/// The longest key read from a file.
const MAX_KEY_BYTES: u64 = 4096;

/// The length and SHA-256 of a large object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measure {
    pub size_bytes: u64,
    pub sha256: [u8; 32],
}

/// The storage of an archive. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ArchiveTarget {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    shown: Arc<str>,
    /// For a directory: its path, to notice when it is missing.
    root: Option<PathBuf>,
}

impl ArchiveTarget {
    /// Opens the target of this configuration. A directory is never created: if a volume is not mounted, it would be
    /// created on the disk below.
    ///
    /// # Errors
    /// An error if no target is set, or if it cannot be used.
    pub fn open(settings: &config::ArchiveConfig) -> Result<Self, ArchiveError> {
        let text = settings.target.as_deref().ok_or(ArchiveError::NotSet)?;
        let refuse = |reason: String| ArchiveError::Target { target: text.to_owned(), reason };
        let url = Url::parse(text).map_err(|e| refuse(e.to_string()))?;
        match url.scheme() {
            "file" => {
                Self::directory(&url.to_file_path().map_err(|()| refuse("write file:///directory".into()))?)
            }
            "s3" => Self::bucket(&url, settings).map_err(refuse),
            _ => Err(refuse("write file:///directory or s3://bucket/prefix".into())),
        }
    }

    fn directory(root: &FilePath) -> Result<Self, ArchiveError> {
        if !root.is_dir() {
            return Err(ArchiveError::Away { path: root.to_owned() });
        }
        let refuse = |e: object_store::Error| ArchiveError::Target {
            target: root.display().to_string(),
            reason: e.to_string(),
        };
        let store = LocalFileSystem::new_with_prefix(root).map_err(refuse)?.with_fsync(true);
        let shown = format!("file://{}", root.display()).into();
        Ok(Self { store: Arc::new(store), prefix: Path::default(), shown, root: Some(root.to_owned()) })
    }

    fn bucket(url: &Url, settings: &config::ArchiveConfig) -> Result<Self, String> {
        let bucket = url.host_str().ok_or("write s3://bucket/prefix")?;
        let secret = secret_key(settings)?;
        let id = settings.access_key_id.as_ref().ok_or("archive.access_key_id is not set")?;
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(&settings.region)
            .with_access_key_id(id.expose())
            .with_secret_access_key(secret.trim())
            .with_http_connector(S3Requests::new())
            .with_client_options(ClientOptions::new())
            .with_retry(retry());
        if let Some(endpoint) = &settings.endpoint {
            let is_plain = endpoint.scheme() == "http";
            builder =
                builder.with_endpoint(endpoint.as_str().trim_end_matches('/')).with_allow_http(is_plain);
        }
        let store = builder.build().map_err(|e| e.to_string())?;
        let prefix = Path::parse(url.path().trim_matches('/')).map_err(|e| e.to_string())?;
        let shown = format!("s3://{bucket}/{prefix}").into();
        Ok(Self { store: Arc::new(store), prefix, shown, root: None })
    }

    /// Uses a store of the caller, for tests.
    #[cfg(any(test, feature = "testing"))]
    pub fn over(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, prefix: Path::default(), shown: "memory".into(), root: None }
    }

    /// The target for display; contains no credentials.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Writes a new object. An existing object with this name and length is left from an earlier, unanswered attempt at
    /// this write: names are never used twice.
    ///
    /// # Errors
    /// [`ArchiveError`]; the object may exist nevertheless.
    pub async fn put_new(&self, name: &str, bytes: Vec<u8>) -> Result<(), ArchiveError> {
        let (path, length) = (self.path(name)?, bytes.len() as u64);
        let putting = async {
            let payload = PutPayload::from(bytes);
            match self.store.put_opts(&path, payload, PutMode::Create.into()).await {
                Err(object_store::Error::AlreadyExists { .. }) => {
                    let there = self.store.head(&path).await?.size;
                    if there == length { Ok(()) } else { Err(half_written(&path)) }
                }
                outcome => outcome.map(|_| ()),
            }
        };
        self.bounded("write", name, PUT_LIMIT, putting).await
    }

    /// Uploads a file under a new name, in parts if it is large, then reads it back and compares.
    ///
    /// # Errors
    /// [`ArchiveError`]; then no part of the object may be used.
    pub async fn put_file(&self, name: &str, file: &FilePath) -> Result<Measure, ArchiveError> {
        if self.holds(name).await? {
            return Err(ArchiveError::Exists { name: name.to_owned() });
        }
        let source = std::fs::File::open(file).map_err(ArchiveError::io("open", file))?;
        let length = source.metadata().map_err(ArchiveError::io("look at", file))?.len();
        let measure = if length <= PART_BYTES as u64 {
            let (bytes, _) = read_part(source, file).await?;
            let measure = Measure { size_bytes: bytes.len() as u64, sha256: sha256(&bytes) };
            self.put_new(name, bytes).await?;
            measure
        } else {
            self.put_parts(name, source, file).await?
        };
        self.compare(name, measure).await?;
        Ok(measure)
    }

    /// True if the object exists. Checked first, because parts are put together over any existing object, and an object
    /// that does not compare is removed.
    async fn holds(&self, name: &str) -> Result<bool, ArchiveError> {
        let path = self.path(name)?;
        let looking = async {
            match self.store.head(&path).await {
                Err(object_store::Error::NotFound { .. }) => Ok(false),
                outcome => outcome.map(|_| true),
            }
        };
        self.bounded("look at", name, GET_LIMIT, looking).await
    }

    async fn put_parts(
        &self,
        name: &str,
        source: std::fs::File,
        file: &FilePath,
    ) -> Result<Measure, ArchiveError> {
        let path = self.path(name)?;
        let begin = self.store.put_multipart(&path);
        let upload = self.bounded("begin", name, PUT_LIMIT, begin).await?;
        let mut writer = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        match self.write_parts(name, source, file, &mut writer).await {
            Ok(measure) => {
                self.bounded("complete", name, PART_LIMIT, writer.finish()).await?;
                Ok(measure)
            }
            Err(error) => {
                // The parts of an upload that is never completed cost money until a rule of the bucket removes them.
                let _ = self.bounded("give up", name, PUT_LIMIT, writer.abort()).await;
                Err(error)
            }
        }
    }

    async fn write_parts(
        &self,
        name: &str,
        mut source: std::fs::File,
        file: &FilePath,
        writer: &mut WriteMultipart,
    ) -> Result<Measure, ArchiveError> {
        let (mut hash, mut size_bytes) = (Sha256::new(), 0);
        loop {
            let (part, rest) = read_part(source, file).await?;
            source = rest;
            if part.is_empty() {
                return Ok(Measure { size_bytes, sha256: hash.finish() });
            }
            hash.update(&part);
            size_bytes += part.len() as u64;
            let room = writer.wait_for_capacity(PARTS_AT_ONCE);
            self.bounded("write a part of", name, PART_LIMIT, room).await?;
            writer.put(part.into());
        }
    }

    async fn compare(&self, name: &str, meant: Measure) -> Result<(), ArchiveError> {
        let found = self.measure(name, |_| Ok(())).await?;
        if found == meant {
            return Ok(());
        }
        // The object is useless, but an object lock may keep it.
        let _ = self.delete(name).await;
        let detail =
            format!("{} bytes were read back where {} were written", found.size_bytes, meant.size_bytes);
        Err(ArchiveError::Damaged { name: name.to_owned(), at: "the store", detail })
    }

    /// Fetches a large object into a new file.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn get_file(
        &self,
        name: &str,
        to: &FilePath,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Measure, ArchiveError> {
        let mut out = std::fs::File::create_new(to).map_err(ArchiveError::io("create", to))?;
        let measure = self
            .measure(name, |bytes| {
                progress(bytes.len() as u64);
                out.write_all(bytes).map_err(ArchiveError::io("write", to))
            })
            .await?;
        out.sync_all().map_err(ArchiveError::io("sync", to))?;
        Ok(measure)
    }

    /// Reads an object part by part, and measures it.
    async fn measure(
        &self,
        name: &str,
        mut each: impl FnMut(&[u8]) -> Result<(), ArchiveError>,
    ) -> Result<Measure, ArchiveError> {
        let path = self.path(name)?;
        let total = self.bounded("look at", name, GET_LIMIT, self.store.head(&path)).await?.size;
        let (mut hash, mut at) = (Sha256::new(), 0);
        while at < total {
            let end = total.min(at + PART_BYTES as u64);
            let part = self.bounded("read", name, GET_LIMIT, self.store.get_range(&path, at..end)).await?;
            if part.len() as u64 != end - at {
                let detail = format!("it ends at byte {}", at + part.len() as u64);
                return Err(ArchiveError::Damaged { name: name.to_owned(), at: "its end", detail });
            }
            hash.update(&part);
            each(&part)?;
            at = end;
        }
        Ok(Measure { size_bytes: total, sha256: hash.finish() })
    }

    /// Reads a whole small object.
    ///
    /// # Errors
    /// [`ArchiveError`]; also if it has more than `limit` bytes.
    pub async fn get(&self, name: &str, limit: usize) -> Result<Vec<u8>, ArchiveError> {
        let path = self.path(name)?;
        let range = Some(GetRange::Bounded(0..limit as u64));
        let getting = async {
            let answer = self.store.get_opts(&path, GetOptions { range, ..GetOptions::default() }).await?;
            let size = answer.meta.size;
            Ok((size, answer.bytes().await?))
        };
        let (size, bytes) = self.bounded("read", name, GET_LIMIT, getting).await?;
        if size > limit as u64 {
            return Err(ArchiveError::TooLarge { name: name.to_owned(), size, limit: limit as u64 });
        }
        Ok(bytes.into())
    }

    /// The objects of a kind and an epoch; `from` skips those that begin before it.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn list(
        &self,
        cluster: &[u8; 16],
        kind: ObjectKind,
        epoch: u64,
        from: Option<u64>,
    ) -> Result<Vec<Object>, ArchiveError> {
        let folder = names::folder(cluster, kind, epoch);
        self.listed(&folder, from.map(|from| names::before(cluster, kind, epoch, from))).await
    }

    /// The objects of a kind, of every epoch.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn list_all(&self, cluster: &[u8; 16], kind: ObjectKind) -> Result<Vec<Object>, ArchiveError> {
        self.listed(&names::kind_folder(cluster, kind), None).await
    }

    async fn listed(&self, folder: &str, after: Option<String>) -> Result<Vec<Object>, ArchiveError> {
        let path = self.path(folder)?;
        let mut stream = match after {
            Some(after) => self.store.list_with_offset(Some(&path), &self.path(&after)?),
            None => self.store.list(Some(&path)),
        };
        let own = if self.prefix.as_ref().is_empty() { 0 } else { self.prefix.as_ref().len() + 1 };
        let listing = async {
            let mut found = Vec::new();
            while let Some(meta) = stream.try_next().await? {
                let name = meta.location.as_ref().get(own..).unwrap_or_default();
                found.extend(names::parse(name, meta.size));
                if found.len() > MAX_LISTED {
                    break;
                }
            }
            Ok(found)
        };
        let mut found = self.bounded("list", folder, LIST_LIMIT, listing).await?;
        if found.len() > MAX_LISTED {
            return Err(ArchiveError::TooMany { limit: MAX_LISTED });
        }
        found.sort_by(|a, b| (a.epoch, a.first, a.last, &a.name).cmp(&(b.epoch, b.first, b.last, &b.name)));
        Ok(found)
    }

    /// The clusters with objects here.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn clusters(&self) -> Result<Vec<[u8; 16]>, ArchiveError> {
        let prefix = (!self.prefix.as_ref().is_empty()).then_some(&self.prefix);
        let listing = self.store.list_with_delimiter(prefix);
        let found = self.bounded("list", "the top", LIST_LIMIT, listing).await?;
        let folders = found.common_prefixes.iter().filter_map(|folder| folder.filename());
        Ok(folders.filter_map(names::parse_cluster).collect())
    }

    /// Removes an object; a missing object is not an error.
    ///
    /// # Errors
    /// [`ArchiveError`]; an object lock forbids the removal for a while.
    pub async fn delete(&self, name: &str) -> Result<(), ArchiveError> {
        let path = self.path(name)?;
        let deleting = async {
            match self.store.delete(&path).await {
                Err(object_store::Error::NotFound { .. }) => Ok(()),
                outcome => outcome,
            }
        };
        self.bounded("remove", name, PUT_LIMIT, deleting).await
    }

    fn path(&self, name: &str) -> Result<Path, ArchiveError> {
        let whole =
            if self.prefix.as_ref().is_empty() { name.to_owned() } else { format!("{}/{name}", self.prefix) };
        Path::parse(whole).map_err(|e| store_error("name", name, &e))
    }

    /// Runs a request within its limit, and only while the directory exists: a file store would create it again,
    /// possibly on another disk.
    async fn bounded<T>(
        &self,
        action: &'static str,
        name: &str,
        limit: Duration,
        work: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, ArchiveError> {
        let working = async {
            if let Some(root) = &self.root
                && !tokio::fs::metadata(root).await.is_ok_and(|found| found.is_dir())
            {
                return Err(ArchiveError::Away { path: root.clone() });
            }
            work.await.map_err(|error| store_error(action, name, &error))
        };
        let too_slow = || ArchiveError::TooSlow { action, name: name.to_owned(), seconds: limit.as_secs() };
        timeout(limit, working).await.unwrap_or_else(|_| Err(too_slow()))
    }
}

/// Reads the next part of a file, on a thread that may wait for the disk; the part is empty at the end of the file.
async fn read_part(source: std::fs::File, file: &FilePath) -> Result<(Vec<u8>, std::fs::File), ArchiveError> {
    let reading = tokio::task::spawn_blocking(move || {
        let mut part = Vec::with_capacity(PART_BYTES);
        (&source).take(PART_BYTES as u64).read_to_end(&mut part)?;
        Ok((part, source))
    });
    let read = reading.await.map_err(|error| ArchiveError::Log(error.to_string()))?;
    read.map_err(ArchiveError::io("read", file))
}

fn secret_key(settings: &config::ArchiveConfig) -> Result<zeroize::Zeroizing<String>, String> {
    if let Some(key) = &settings.secret_access_key {
        return Ok(zeroize::Zeroizing::new(key.expose().to_owned()));
    }
    let file = settings.secret_access_key_file.as_ref().ok_or("archive.secret_access_key_file is not set")?;
    let mut text = zeroize::Zeroizing::new(String::new());
    std::fs::File::open(file)
        .and_then(|open| open.take(MAX_KEY_BYTES).read_to_string(&mut text))
        .map_err(|e| format!("archive.secret_access_key_file {}: {e}", file.display()))?;
    Ok(text)
}

fn retry() -> RetryConfig {
    let backoff = BackoffConfig { max_backoff: MAX_BACKOFF, ..BackoffConfig::default() };
    RetryConfig { backoff, max_retries: RETRIES, retry_timeout: RETRY_LIMIT }
}

fn half_written(path: &Path) -> object_store::Error {
    let source = "an earlier attempt left a part of it".into();
    object_store::Error::AlreadyExists { path: path.to_string(), source }
}

fn store_error(action: &'static str, name: &str, error: &dyn Display) -> ArchiveError {
    ArchiveError::Store { action, name: name.to_owned(), reason: error.to_string() }
}
