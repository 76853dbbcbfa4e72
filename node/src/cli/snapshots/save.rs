//! `conclave snapshot save`: writes a file that gets its name only once it is complete, here or in a bucket.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use conclave_client::{
    AdminClient,
    v1::{self, SaveSnapshotRequest},
};
use serde_json::{Value, json};

use super::super::{
    connection::ApiArgs,
    failure::Failure,
    output::{Output, with},
    progress::Progress,
};
use conclave_archive::ArchiveTarget;

const SAVED: &[&str] = &["file", "cluster_id", "epoch", "term", "index", "created_at_ms", "size_bytes"];

pub(super) async fn run(
    api: &ApiArgs,
    to: Option<PathBuf>,
    request: SaveSnapshotRequest,
) -> Result<Output, Failure> {
    match to.as_deref().and_then(in_bucket) {
        Some((bucket, name)) => save_to_bucket(api, bucket, name, request).await,
        None => save(&api.connect()?, to, request).await,
    }
}

async fn save(
    client: &AdminClient,
    to: Option<PathBuf>,
    request: SaveSnapshotRequest,
) -> Result<Output, Failure> {
    if let Some(to) = to.as_deref().filter(|to| to.exists()) {
        return Err(exists(to));
    }
    let mut saved = client.snapshots().save(request).await?;
    let about = saved.description.clone();
    let to = to.unwrap_or_else(|| PathBuf::from(format!("conclave-{}.snapshot", about.index)));
    let aside = Aside::create(&to)?;
    let mut progress = Progress::new("saving", about.size_bytes);
    let mut done = 0;
    let failed = |e: std::io::Error| Failure::other(format!("cannot write {}: {e}", aside.path.display()));
    while let Some(bytes) = saved.next().await? {
        (&aside.file).write_all(&bytes).map_err(failed)?;
        done += bytes.len() as u64;
        progress.at(done);
    }
    drop(progress);
    if done != about.size_bytes {
        return Err(Failure::other(format!(
            "the node sent {done} of {} bytes; nothing was written: try again",
            about.size_bytes
        )));
    }
    aside.keep(&to)?;
    let value = described(&to, &about);
    Ok(Output::One { fields: SAVED, value })
}

/// The bucket and the name of a destination that is not a local file.
fn in_bucket(to: &Path) -> Option<(String, String)> {
    let url = to.to_str().filter(|url| url.starts_with("s3://"))?;
    let (bucket, name) = url.rsplit_once('/')?;
    Some((bucket.to_owned(), name.to_owned()))
}

/// Saves by way of a temporary local file.
async fn save_to_bucket(
    api: &ApiArgs,
    bucket: String,
    name: String,
    request: SaveSnapshotRequest,
) -> Result<Output, Failure> {
    if name.is_empty() || !bucket.starts_with("s3://") || bucket.len() <= "s3://".len() {
        return Err(Failure::usage("name the bucket and the file in it: --to s3://BUCKET/NAME"));
    }
    let failed = |e: &dyn std::fmt::Display| Failure::other(format!("cannot save to {bucket}/{name}: {e}"));
    let settings = conclave_config::ArchiveConfig { target: Some(bucket.clone()), ..api.settings()?.archive };
    let target = ArchiveTarget::open(&settings).map_err(|e| Failure::usage(e.to_string()))?;
    let scratch = tempfile::Builder::new().prefix("conclave-save-").tempdir().map_err(|e| failed(&e))?;
    let file = scratch.path().join("snapshot");
    let saved = save(&api.connect()?, Some(file.clone()), request).await?;
    target.put_file(&name, &file).await.map_err(|e| failed(&e))?;
    match saved {
        Output::One { fields, value } => {
            Ok(Output::One { fields, value: with(value, "file", format!("{bucket}/{name}")) })
        }
        other => Ok(other),
    }
}

/// A file that gets its name only once it is complete.
struct Aside {
    path: PathBuf,
    file: File,
    kept: bool,
}

impl Aside {
    fn create(to: &Path) -> Result<Self, Failure> {
        if to.exists() {
            return Err(exists(to));
        }
        let mut name = to.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let path = to.with_file_name(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(|e| Failure::other(format!("cannot write {}: {e}", path.display())))?;
        Ok(Self { path, file, kept: false })
    }

    fn keep(mut self, to: &Path) -> Result<(), Failure> {
        let kept = self.file.sync_all().and_then(|()| name(&self.path, to));
        kept.map_err(|e| Failure::other(format!("cannot write {}: {e}", to.display())))?;
        self.kept = true;
        Ok(())
    }
}

/// Gives the file its name, but never replaces another file.
fn name(path: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(path, to) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists && !to.exists() => {
            // The file system may not support links.
            fs::rename(path, to)
        }
        linked => linked,
    }?;
    let dir = to.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    File::open(dir)?.sync_all()
}

impl Drop for Aside {
    fn drop(&mut self) {
        // A kept file has another name by now.
        let _ = fs::remove_file(&self.path);
    }
}

fn exists(to: &Path) -> Failure {
    Failure::usage(format!("{} exists; name another file with --to", to.display()))
}

fn described(file: &Path, about: &v1::SnapshotDescription) -> Value {
    json!({
        "file": file,
        "cluster_id": about.cluster_id,
        "epoch": about.epoch,
        "term": about.term,
        "index": about.index,
        "created_at_ms": about.created_at_ms,
        "size_bytes": about.size_bytes,
    })
}
