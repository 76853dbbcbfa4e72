//! The replicated state on this node: the rules apply entries, readers see whole versions, and snapshots are written
//! and installed.
//!
//! One `Arc<State>` is swapped with each entry. A reader may keep its version for as long as it likes, and never waits.

use std::{io, sync::Arc};

use arc_swap::ArcSwap;
use conclave_proto::cluster::v1 as pb;
use conclave_state::{Class, IndexedEntry as RulesEntry, State, apply, snapshot};
use futures_util::{Stream, TryStreamExt as _};
use openraft::{
    EntryPayload, RaftSnapshotBuilder,
    entry::RaftEntry as _,
    storage::{EntryResponder, RaftStateMachine},
};
use tokio::sync::watch;

use conclave_base::runtime::Runtime;
use conclave_store::snapshot::{
    SealingKey, SnapshotDir, SnapshotError, SnapshotFile, SnapshotHeader, SnapshotReader, SnapshotWriter,
};

use super::{
    identity::Lineage,
    log_store::{decode_stored_membership, encode_stored_membership},
    rt,
    types::{ApplyOutcome, Config, RaftLogId, SnapshotMeta, StoredMembership},
    wire,
};

/// Bytes copied at once when a file from outside is taken over.
const COPY_BYTES: usize = 256 * 1024;

type Snapshot = openraft::type_config::alias::SnapshotOf<Config, SnapshotFile>;

/// The handle of readers: the current version, and a signal for each new index.
#[derive(Clone)]
pub struct StateView {
    current: Arc<ArcSwap<State>>,
    applied: watch::Receiver<u64>,
    revoked: watch::Receiver<u64>,
    /// True while a test holds this node back.
    #[cfg(any(test, feature = "testing"))]
    pub held: Arc<watch::Sender<bool>>,
}

impl StateView {
    /// The current version.
    pub fn load(&self) -> Arc<State> {
        self.current.load_full()
    }

    /// Changes with each revocation that this node has applied, once its checks see it.
    pub fn revoked(&self) -> watch::Receiver<u64> {
        self.revoked.clone()
    }

    /// Waits until this node has applied `index`. The caller bounds the wait. Returns `None` if this never happens: the
    /// machine has stopped, and its last version must not be taken for the requested one.
    pub async fn reach(&self, index: u64) -> Option<Arc<State>> {
        let mut applied = self.applied.clone();
        applied.wait_for(|at| *at >= index).await.ok()?;
        Some(self.load())
    }
}

/// The snapshot files of this node, and the key that seals them.
#[derive(Clone)]
pub struct LocalSnapshots {
    pub dir: Arc<SnapshotDir>,
    pub key: Arc<SealingKey>,
    pub lineage: Lineage,
    pub runtime: Runtime,
}

/// The state machine that openraft drives.
pub struct StateMachine {
    current: Arc<ArcSwap<State>>,
    applied: watch::Sender<u64>,
    revoked: watch::Sender<u64>,
    last: Option<RaftLogId>,
    membership: StoredMembership,
    snapshots: LocalSnapshots,
    #[cfg(any(test, feature = "testing"))]
    held: Arc<watch::Sender<bool>>,
}

impl StateMachine {
    /// Starts from the latest valid snapshot, or from an empty state.
    ///
    /// # Errors
    /// An error if the snapshots cannot be read at all.
    pub fn open(snapshots: LocalSnapshots) -> io::Result<(Self, StateView)> {
        let mut machine = Self::empty(snapshots);
        if let Some(file) = machine.snapshots.dir.latest(&machine.snapshots.key).map_err(io::Error::other)? {
            let (meta, state) = load(&file, &machine.snapshots)?;
            machine.take(meta, state);
        }
        let view = StateView {
            current: Arc::clone(&machine.current),
            applied: machine.applied.subscribe(),
            revoked: machine.revoked.subscribe(),
            #[cfg(any(test, feature = "testing"))]
            held: Arc::clone(&machine.held),
        };
        Ok((machine, view))
    }

    fn empty(snapshots: LocalSnapshots) -> Self {
        let (applied, _) = watch::channel(0);
        let (revoked, _) = watch::channel(0);
        Self {
            current: Arc::new(ArcSwap::from_pointee(State::default())),
            applied,
            revoked,
            last: None,
            membership: StoredMembership::default(),
            snapshots,
            #[cfg(any(test, feature = "testing"))]
            held: Arc::default(),
        }
    }

    fn take(&mut self, meta: SnapshotMeta, state: State) {
        self.last = meta.last_log_id;
        self.membership = meta.last_membership;
        self.publish(state);
        // The snapshot may contain revocations.
        self.revoked.send_replace(self.current.load().index());
    }

    /// Publishes the version first and the index after it: a reader that is woken by the index finds the version.
    fn publish(&self, state: State) {
        let index = state.index();
        self.current.store(Arc::new(state));
        self.applied.send_replace(index);
    }

    fn apply_one(&mut self, entry: &super::types::RaftLogEntry) -> io::Result<ApplyOutcome> {
        let id = entry.log_id();
        let state = self.current.load();
        let outcome = match &entry.payload {
            EntryPayload::Normal(payload) => {
                let applied = apply(&state, &RulesEntry { index: id.index, bytes: &payload.0 })
                    .map_err(io::Error::other)?;
                let revokes = applied.class == Class::Revocation;
                self.publish(applied.state);
                if revokes {
                    self.revoked.send_replace(id.index);
                }
                ApplyOutcome { reply: Some(applied.reply), revokes, events: applied.events }
            }
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(id), membership.clone());
                self.publish(state.having_seen(id.index));
                ApplyOutcome::default()
            }
            EntryPayload::Blank => {
                self.publish(state.having_seen(id.index));
                ApplyOutcome::default()
            }
        };
        self.last = Some(id);
        Ok(outcome)
    }
}

impl RaftStateMachine<Config> for StateMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<RaftLogId>, StoredMembership), io::Error> {
        Ok((self.last, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<Config>, io::Error>> + Unpin + Send,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            #[cfg(any(test, feature = "testing"))]
            let _ = self.held.subscribe().wait_for(|held| !held).await;
            let outcome = self.apply_one(&entry)?;
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            meta: SnapshotMeta { last_log_id: self.last, last_membership: self.membership.clone() },
            state: self.current.load_full(),
            snapshots: self.snapshots.clone(),
        }
    }

    async fn install_snapshot(&mut self, _meta: &SnapshotMeta, file: SnapshotFile) -> Result<(), io::Error> {
        let snapshots = self.snapshots.clone();
        let (meta, state) = blocking(move || load(&adopt(file, &snapshots)?, &snapshots)).await?;
        self.take(meta, state);
        self.snapshots.dir.prune(conclave_store::retention::KEEP_SNAPSHOTS).map_err(io::Error::other)
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let snapshots = self.snapshots.clone();
        blocking(move || {
            let Some(file) = snapshots.dir.latest(&snapshots.key).map_err(io::Error::other)? else {
                return Ok(None);
            };
            Ok(Some(Snapshot { meta: meta_of(&file)?, snapshot: file }))
        })
        .await
    }
}

/// Writes one version to a file, without stopping other work.
pub struct SnapshotBuilder {
    meta: SnapshotMeta,
    state: Arc<State>,
    snapshots: LocalSnapshots,
}

impl RaftSnapshotBuilder<Config> for SnapshotBuilder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let (meta, state, snapshots) = (self.meta.clone(), Arc::clone(&self.state), self.snapshots.clone());
        let file = background(move || {
            let file = write(&meta, &state, &snapshots).map_err(io::Error::other)?;
            snapshots.dir.prune(conclave_store::retention::KEEP_SNAPSHOTS).map_err(io::Error::other)?;
            Ok(file)
        })
        .await?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: file })
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    rt::blocking(work).await.map_err(io::Error::other)?
}

/// Runs on a thread of low priority: a snapshot is less urgent than a check.
async fn background<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    rt::background(work).await?
}

/// Writes a snapshot file into the directory of `snapshots`.
pub(super) fn write(
    meta: &SnapshotMeta,
    state: &State,
    snapshots: &LocalSnapshots,
) -> Result<SnapshotFile, SnapshotError> {
    let header = SnapshotHeader {
        cluster: snapshots.lineage.cluster,
        lineage_epoch: snapshots.lineage.epoch,
        last: meta
            .last_log_id
            .map(|id| conclave_store::LogId { term: id.committed_leader_id().term, index: id.index }),
        membership: encode_stored_membership(&meta.last_membership),
        created_at_ms: snapshots.runtime.clock.now_ms(),
    };
    let mut writer =
        SnapshotWriter::create(snapshots.dir.path(), header, &snapshots.key, |salt: &mut [u8]| {
            snapshots.runtime.entropy.fill(salt);
        })?;
    for (table, chunk) in snapshot::chunks(state) {
        writer.chunk(table, &chunk)?;
    }
    writer.finish()
}

fn meta_of(file: &SnapshotFile) -> io::Result<SnapshotMeta> {
    let last = file.header.last.as_ref();
    Ok(SnapshotMeta {
        last_log_id: last.map(|id| wire::log_id(&pb::LogId { term: id.term, index: id.index })),
        last_membership: decode_stored_membership(&file.header.membership)?,
    })
}

/// Moves the file into this node's own directory. A file that arrived from the leader is there already; a restart must
/// find it.
fn adopt(file: SnapshotFile, snapshots: &LocalSnapshots) -> io::Result<SnapshotFile> {
    if file.path.parent() == Some(snapshots.dir.path()) {
        return Ok(file);
    }
    let mut incoming = snapshots.dir.receive().map_err(io::Error::other)?;
    let mut source = io::BufReader::with_capacity(COPY_BYTES, std::fs::File::open(&file.path)?);
    loop {
        let bytes = io::BufRead::fill_buf(&mut source)?;
        if bytes.is_empty() {
            return incoming.finish(&snapshots.key).map_err(io::Error::other);
        }
        incoming.write(bytes).map_err(io::Error::other)?;
        let read = bytes.len();
        io::BufRead::consume(&mut source, read);
    }
}

/// Reads and checks the whole file before any part of it is used.
fn load(file: &SnapshotFile, snapshots: &LocalSnapshots) -> io::Result<(SnapshotMeta, State)> {
    let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
    let reader = SnapshotReader::open(&file.path, &snapshots.key).map_err(|e| invalid(e.to_string()))?;
    let header = reader.header();
    if header.cluster != snapshots.lineage.cluster || header.lineage_epoch != snapshots.lineage.epoch {
        return Err(invalid("the snapshot belongs to another cluster or lineage".into()));
    }
    let mut loader = snapshot::Loader::default();
    for chunk in reader {
        let (table, bytes) = chunk.map_err(|e| invalid(e.to_string()))?;
        loader.chunk(table, &bytes).map_err(|e| invalid(e.to_string()))?;
    }
    Ok((meta_of(file)?, loader.finish()))
}
