//! The data directory of a node: the identity of its node, and a lock so that only one process uses it.
//!
//! ```text
//! lock         locked while a process uses the directory; holds its pid
//! identity     the identity of this node
//! log/         see `sled_log`
//! snapshots/   see `snapshot`
//! aside-*/     contents that a restore replaced; see `exchange`
//! ```
//!
//! The identity is a small file of its own and not a record of the log. It must be readable before the log is opened
//! (to refuse a foreign directory without touching it), and must outlive a rewrite of the log. It also makes a
//! *missing* log visible: it is written last when a directory is set up, so a directory with an identity once had a
//! complete log and vote. Opening an empty log under an old identity would let a node vote twice in one term.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{SledLog, StoreError, exchange, files};

const MAGIC: &[u8; 8] = b"CNCLNODE";
const VERSION: u8 = 1;
/// Flags of an identity.
const BELONGS: u8 = 1;
const JOINED: u8 = 2;
const IDENTITY_BYTES: usize = 8 + 1 + 1 + 16 + 8 + 8 + 16 + 16 + 4;

/// The names that a directory may hold before it has an identity: remains of an interrupted set-up.
const SETUP_NAMES: [&str; 9] = [
    "cluster.secret",
    "lock",
    "log",
    "snapshots",
    "identity.tmp",
    "lost+found",
    exchange::STAGE,
    exchange::MARK,
    "restored.tmp",
];

/// The identity of a node. It is fixed at set-up, except for the cluster, which the node joins later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDirIdentity {
    /// The cluster this node belongs to; `None` until it is bootstrapped or has joined.
    pub cluster: Option<[u8; 16]>,
    /// Raised by each restore (docs/design/restore.md).
    pub lineage_epoch: u64,
    pub node_id: u64,
    /// True if the node joined an existing cluster: its log starts empty, and it must not found a cluster.
    pub joined: bool,
    /// Made anew with the directory: a node with a wiped disk is another member.
    pub incarnation: [u8; 16],
    /// Derived from the cluster secret, so that a wrong secret is noticed at start and not in a handshake.
    pub secret_check: [u8; 16],
}

/// A directory that this process holds until this value is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    identity: Option<DataDirIdentity>,
    lock: File,
}

impl Drop for DataDir {
    fn drop(&mut self) {
        // Closing alone would leave the lock to a process that is being spawned just now. The kernel releases it in any
        // case.
        let _ = self.lock.unlock();
    }
}

/// The name of the secret that a data directory was made with, for a running node.
#[derive(Debug)]
pub struct SecretMark {
    path: PathBuf,
    identity: DataDirIdentity,
}

impl SecretMark {
    /// The name of the secret.
    pub const fn secret_check(&self) -> [u8; 16] {
        self.identity.secret_check
    }

    /// Records this secret as that of the directory. Durable when it returns; does nothing if it is recorded already.
    ///
    /// # Errors
    /// An error if it cannot be written; the directory is then unchanged.
    pub fn record_secret_id(&mut self, secret_check: [u8; 16]) -> Result<(), StoreError> {
        if self.identity.secret_check == secret_check {
            return Ok(());
        }
        let identity = DataDirIdentity { secret_check, ..self.identity.clone() };
        files::replace(&self.path, &encode(&identity))?;
        self.identity = identity;
        Ok(())
    }
}

impl DataDir {
    /// Creates the directory if necessary (0700), locks it and reads its identity. Refuses a directory that is in use,
    /// that contains foreign files, or whose identity is damaged.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        create_all(path)?;
        refuse_foreign(path)?;
        let lock = lock(path)?;
        exchange::finish(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .map_err(StoreError::io("chmod", path))?;
        let identity = read_identity(&path.join("identity"))?;
        Ok(Self { path: path.to_owned(), identity, lock })
    }

    /// The identity of the node whose data are at `path`. It is read without a lock, so it may be outdated when it is
    /// returned. `None` for a directory that is fresh or missing. A restore that was interrupted after its mark is
    /// finished first: the identity there may still be the earlier one.
    pub fn peek(path: &Path) -> Result<Option<DataDirIdentity>, StoreError> {
        if exchange::is_begun(path) {
            return Ok(Self::open(path)?.identity.clone());
        }
        read_identity(&path.join("identity"))
    }

    /// Refuses the contents that [`open`](Self::open) would refuse, and changes nothing.
    pub fn refuse_foreign(path: &Path) -> Result<(), StoreError> {
        if path.exists() { refuse_foreign(path) } else { Ok(()) }
    }

    /// True if nothing was set up at `path` yet. It is read without a lock, so it may be outdated when it is returned.
    pub fn is_fresh(path: &Path) -> bool {
        !path.join("identity").exists()
    }

    /// `None` in a fresh directory.
    pub fn identity(&self) -> Option<&DataDirIdentity> {
        self.identity.as_ref()
    }

    /// Sets up a fresh directory: log, snapshots, and the identity last, each durable before the next.
    pub fn initialize(&mut self, identity: DataDirIdentity) -> Result<SledLog, StoreError> {
        self.initialize_over(identity, SledLog::create)
    }

    /// Like [`Self::initialize`], over a log that the caller creates.
    pub fn initialize_over<L>(
        &mut self,
        identity: DataDirIdentity,
        create: impl FnOnce(&Path) -> Result<L, StoreError>,
    ) -> Result<L, StoreError> {
        if self.identity.is_some() {
            return Err(StoreError::Misuse(format!("{} already has an identity", self.path.display())));
        }
        let log = create(&self.log())?;
        files::create_dir(&self.snapshots())?;
        self.save_identity(identity)?;
        Ok(log)
    }

    /// Opens the log of a directory that was set up.
    pub fn open_log(&self) -> Result<SledLog, StoreError> {
        self.open_log_with(SledLog::open)
    }

    /// Like [`Self::open_log`], for a log that the caller opens.
    pub fn open_log_with<L>(
        &self,
        open: impl FnOnce(&Path) -> Result<L, StoreError>,
    ) -> Result<L, StoreError> {
        match self.identity {
            Some(_) => open(&self.log()),
            None => Err(StoreError::Misuse(format!("{} has no identity yet", self.path.display()))),
        }
    }

    /// Replaces the identity durably and as a whole.
    pub fn save_identity(&mut self, identity: DataDirIdentity) -> Result<(), StoreError> {
        files::replace(&self.path.join("identity"), &encode(&identity))?;
        self.identity = Some(identity);
        Ok(())
    }

    /// Undoes a set-up that was refused before it was used: the directory is fresh again. The log must be closed.
    ///
    /// # Errors
    /// An error if something cannot be removed.
    pub fn abandon(self) -> Result<(), StoreError> {
        let identity = self.path.join("identity");
        fs::remove_file(&identity).map_err(StoreError::io("remove", &identity))?;
        for directory in [self.log(), self.snapshots()] {
            fs::remove_dir_all(&directory).map_err(StoreError::io("remove", &directory))?;
        }
        Ok(())
    }

    /// The mark of the secret that these data were made with, for a running node. The identity must not be saved in
    /// another way after this call.
    pub fn secret_mark(&self) -> Option<SecretMark> {
        let identity = self.identity.clone()?;
        Some(SecretMark { path: self.path.join("identity"), identity })
    }

    /// Replaces the contents as a whole: `build` creates a log and a snapshot directory at the given paths. After a
    /// crash at any point the directory holds the old contents or the new ones. The old contents are kept below
    /// `aside-<name>`; returns that path if there were any.
    pub fn replace_contents<E: From<StoreError>>(
        &mut self,
        identity: DataDirIdentity,
        name: &str,
        build: impl FnOnce(&Path, &Path) -> Result<(), E>,
    ) -> Result<Option<PathBuf>, E> {
        let stage = exchange::begin(&self.path)?;
        let snapshots = stage.join("snapshots");
        files::create_dir(&snapshots)?;
        build(&stage.join("log"), &snapshots)?;
        files::replace(&stage.join("identity"), &encode(&identity))?;
        let aside = format!("{}{name}", exchange::ASIDE_PREFIX);
        exchange::commit(&self.path, &aside)?;
        self.identity = Some(identity);
        let aside = self.path.join(aside);
        Ok(aside.exists().then_some(aside))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// The path of the snapshot files.
    pub fn snapshots(&self) -> PathBuf {
        self.path.join("snapshots")
    }
}

fn create_all(path: &Path) -> Result<(), StoreError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        create_all(parent)?;
    }
    files::create_dir(path)
}

/// Checked before anything is written into the directory.
fn refuse_foreign(path: &Path) -> Result<(), StoreError> {
    if !DataDir::is_fresh(path) {
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(StoreError::io("list", path))? {
        let name = entry.map_err(StoreError::io("list", path))?.file_name();
        let aside = name.to_str().is_some_and(|name| name.starts_with(exchange::ASIDE_PREFIX));
        if !aside && !SETUP_NAMES.iter().any(|ours| name == *ours) {
            let found = name.to_string_lossy().into_owned();
            return Err(StoreError::Foreign { path: path.to_owned(), found });
        }
    }
    Ok(())
}

fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join("lock");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(StoreError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // The pid is only informative: the refusal also works without it.
            let _ = file.take(20).read_to_string(&mut pid);
            let pid = if pid.trim().is_empty() { "unknown".to_owned() } else { pid.trim().to_owned() };
            return Err(StoreError::InUse { path: dir.to_owned(), pid });
        }
        Err(TryLockError::Error(e)) => return Err(StoreError::io("lock", &path)(e)),
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut file).map_err(StoreError::io("write", &path))?;
    Ok(file)
}

fn read_identity(path: &Path) -> Result<Option<DataDirIdentity>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => decode(&bytes)
            .map(Some)
            .map_err(|detail| StoreError::BadIdentity { path: path.to_owned(), detail: detail.to_owned() }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StoreError::io("read", path)(e)),
    }
}

fn encode(identity: &DataDirIdentity) -> Vec<u8> {
    let mut out = Vec::with_capacity(IDENTITY_BYTES);
    out.extend_from_slice(MAGIC);
    out.push(VERSION);
    out.push((u8::from(identity.cluster.is_some()) * BELONGS) | (u8::from(identity.joined) * JOINED));
    out.extend_from_slice(&identity.cluster.unwrap_or_default());
    out.extend_from_slice(&identity.lineage_epoch.to_be_bytes());
    out.extend_from_slice(&identity.node_id.to_be_bytes());
    out.extend_from_slice(&identity.incarnation);
    out.extend_from_slice(&identity.secret_check);
    out.extend_from_slice(&crc32c::crc32c(&out).to_be_bytes());
    out
}

fn decode(bytes: &[u8]) -> Result<DataDirIdentity, &'static str> {
    if bytes.len() != IDENTITY_BYTES {
        return Err("it has the wrong length");
    }
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or("it has the wrong length")?;
    if crc32c::crc32c(body).to_be_bytes() != *crc {
        return Err("its checksum does not match");
    }
    let mut rest = body.strip_prefix(MAGIC).ok_or("it is not a conclave identity")?;
    match take::<1>(&mut rest)? {
        [VERSION] => {}
        _ => return Err("its version is unknown to this release"),
    }
    let [flags] = take::<1>(&mut rest)?;
    if flags & !(BELONGS | JOINED) != 0 {
        return Err("its flags are unknown to this release");
    }
    let cluster = take::<16>(&mut rest)?;
    Ok(DataDirIdentity {
        cluster: (flags & BELONGS != 0).then_some(cluster),
        lineage_epoch: u64::from_be_bytes(take(&mut rest)?),
        node_id: u64::from_be_bytes(take(&mut rest)?),
        joined: flags & JOINED != 0,
        incarnation: take(&mut rest)?,
        secret_check: take(&mut rest)?,
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], &'static str> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or("it ends too early")?;
    *rest = tail;
    Ok(*head)
}
