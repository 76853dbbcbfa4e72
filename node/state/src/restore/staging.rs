//! The transfer of an older state into a running cluster: begun, sent piece by piece, then committed in one step or
//! aborted. It has no effect before the commit. It is part of snapshots like every table, so a restore survives a
//! change of leader and a node that joins in the middle of it.

use std::sync::Arc;

use conclave_proto::{command::v1 as pb, state::v1 as rows};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::{
    draft::Draft,
    ids::RestoreId,
    level,
    reply::{Reason, Refusal, Reply, done},
    snapshot::{LoadError, Loader, bad, load_row},
    stamp::Stamp,
    state::{Expiring, State},
    text,
};

use super::merge::{MergeOptions, RestoreTarget, restored};

/// Longest piece: it fits into one log entry with its envelope.
pub const MAX_PIECE_BYTES: usize = 56 * 1024;
/// Most pieces: 11 GiB, far above any state that fits into memory.
const MAX_PIECES: u64 = 200_000;
/// Longest row that may be spread over several pieces. The longest existing rows hold the fields of a few commands.
const MAX_ROW_BYTES: usize = 4 * 1024 * 1024;
/// Longest duration of a restore: what a client left behind must not stay in memory for ever.
const LIFETIME_MS: u64 = 3_600_000;

pub(crate) const HEAD_TABLE: u32 = 200;
pub(crate) const ROWS_TABLE: u32 = 201;

/// The part of the older state that has been transferred.
#[derive(Clone)]
pub struct Staging {
    id: RestoreId,
    source: String,
    begun_at: Stamp,
    pieces: u64,
    hash: PieceHash,
    table: u32,
    begun_row: Vec<u8>,
    state: State,
}

/// Running hash over the pieces so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceHash([u8; 32]);

impl PieceHash {
    /// The hash of no pieces.
    #[must_use]
    pub fn start() -> Self {
        Self(Sha256::digest(b"").into())
    }

    /// The hash with one more piece.
    #[must_use]
    pub fn with(self, table: u32, rows: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update(table.to_be_bytes());
        hash.update(rows);
        Self(hash.finalize().into())
    }

    /// The bytes for a message field.
    #[must_use]
    pub fn to_vec(self) -> Vec<u8> {
        self.0.to_vec()
    }
}

pub(crate) fn begin(draft: &mut Draft, command: &pb::BeginRestore) -> Result<Reply, Refusal> {
    let id = RestoreId::parse(&command.restore_id)?;
    let source = text::line("source", &command.source, text::MAX_TEXT_BYTES)?;
    if let Some(before) = draft.state.staging.as_ref().map(|staging| staging.id) {
        draft.state.forget_restore(before);
    }
    draft.state.put_staging(Staging {
        id,
        source,
        begun_at: draft.at,
        pieces: 0,
        hash: PieceHash::start(),
        table: 0,
        begun_row: Vec::new(),
        state: State::default(),
    });
    Ok(done())
}

pub(crate) fn stage(draft: &mut Draft, command: &pb::StageRows) -> Result<Reply, Refusal> {
    let staging = existing(draft, &command.restore_id)?;
    if command.sequence != staging.pieces {
        return Err(unknown(&format!("piece {} came where {} is due", command.sequence, staging.pieces)));
    }
    if command.rows.len() > MAX_PIECE_BYTES || staging.pieces >= MAX_PIECES {
        return Err(Refusal::malformed("a piece is too long, or there are too many"));
    }
    let next = staging.with(command.table, &command.rows).map_err(|e| Refusal::malformed(e.to_string()))?;
    draft.state.staging = Some(Arc::new(next));
    Ok(done())
}

pub(crate) fn commit(draft: &mut Draft, command: &pb::CommitRestore) -> Result<Reply, Refusal> {
    let staging = existing(draft, &command.restore_id)?;
    let whole =
        command.pieces == staging.pieces && command.hash == staging.hash.0 && staging.begun_row.is_empty();
    if !whole {
        return Err(unknown("not all of it has arrived as it was sent; start again"));
    }
    if staging.state.meta.level > level::SUPPORTED {
        return Err(Refusal::malformed(
            "the snapshot is of a higher feature level; upgrade the cluster first",
        ));
    }
    let options = MergeOptions {
        index: draft.index,
        at: draft.at,
        target: RestoreTarget::Live,
        former_epoch: None,
        last_node_id: 0,
        keep_sessions: false,
        enable_returning: command.enable_returning,
        reset_log_time: false,
    };
    draft.state = restored(&staging.state, &draft.state, &options);
    Ok(done())
}

/// Aborts a restore. Succeeds too if there is no such restore: it may have been aborted before.
pub(crate) fn abort(draft: &mut Draft, command: &pb::AbortRestore) -> Result<Reply, Refusal> {
    draft.state.forget_restore(RestoreId::parse(&command.restore_id)?);
    Ok(done())
}

fn existing(draft: &Draft, id: &[u8]) -> Result<Arc<Staging>, Refusal> {
    let id = RestoreId::parse(id)?;
    let staging = draft.state.staging.clone().filter(|staging| staging.id == id);
    staging.ok_or_else(|| unknown("another one was begun since, or it took too long; start again"))
}

fn unknown(detail: &str) -> Refusal {
    Refusal::new(Reason::RestoreUnknown, format!("the restore cannot go on: {detail}"))
}

impl Staging {
    /// The restore's id, its source, and the number of pieces transferred.
    #[must_use]
    pub fn progress(&self) -> (RestoreId, &str, u64) {
        (self.id, &self.source, self.pieces)
    }

    fn with(&self, table: u32, rows: &[u8]) -> Result<Self, LoadError> {
        if table != self.table && !self.begun_row.is_empty() {
            return Err(bad(table, &"it begins inside a row of another table"));
        }
        if matches!(table, HEAD_TABLE | ROWS_TABLE) {
            return Err(bad(table, &"a restore is no part of a restore"));
        }
        let mut bytes = self.begun_row.clone();
        bytes.extend_from_slice(rows);
        let mut loader = Loader::onto(self.state.clone());
        let begun_row = loader.piece(table, &bytes)?.to_vec();
        if begun_row.len() > MAX_ROW_BYTES {
            return Err(bad(table, &"a row is too long"));
        }
        Ok(Self {
            pieces: self.pieces + 1,
            hash: self.hash.with(table, rows),
            table,
            begun_row,
            state: loader.finish(),
            source: self.source.clone(),
            ..*self
        })
    }
}

impl State {
    /// The restore in progress, if there is one.
    #[must_use]
    pub fn restore_on_its_way(&self) -> Option<&Staging> {
        self.staging.as_deref()
    }

    fn put_staging(&mut self, staging: Staging) {
        self.expire_at(staging.begun_at.plus_ms(LIFETIME_MS), Expiring::Restore(staging.id));
        self.staging = Some(Arc::new(staging));
    }

    pub(crate) fn forget_restore(&mut self, id: RestoreId) {
        if let Some(staging) = self.staging.take_if(|staging| staging.id == id) {
            self.forget_expiry(staging.begun_at.plus_ms(LIFETIME_MS), Expiring::Restore(id));
        }
    }
}

/// The snapshot rows of a restore in progress.
pub(crate) fn rows(state: &State) -> impl Iterator<Item = (u32, Vec<u8>)> + Send + '_ {
    state.staging.iter().flat_map(|staging| {
        let head = rows::StagingRow {
            restore_id: staging.id.to_vec(),
            source: staging.source.clone(),
            begun_at_ms: staging.begun_at.0,
            pieces: staging.pieces,
            hash: staging.hash.to_vec(),
            table: staging.table,
            begun_row: staging.begun_row.clone(),
        };
        let head = std::iter::once((HEAD_TABLE, head.encode_to_vec()));
        // Boxed, because the walk is recursive: it walks over a state inside the state that it walks over.
        let staged: Box<dyn Iterator<Item = (u32, Vec<u8>)> + Send + '_> =
            Box::new(crate::snapshot::rows(&staging.state));
        head.chain(staged.map(|(table, row)| (ROWS_TABLE, rows::StagedRow { table, row }.encode_to_vec())))
    })
}

pub(crate) fn load_head(state: &mut State, wire: rows::StagingRow) -> Result<(), LoadError> {
    let id = RestoreId::parse(&wire.restore_id).map_err(|e| bad(HEAD_TABLE, &e))?;
    let hash = wire.hash.as_slice().try_into().map_err(|_| bad(HEAD_TABLE, &"a hash has 32 bytes"))?;
    state.put_staging(Staging {
        id,
        source: wire.source,
        begun_at: Stamp(wire.begun_at_ms),
        pieces: wire.pieces,
        hash: PieceHash(hash),
        table: wire.table,
        begun_row: wire.begun_row,
        state: State::default(),
    });
    Ok(())
}

pub(crate) fn load_staged(state: &mut State, wire: &rows::StagedRow) -> Result<(), LoadError> {
    let staging = state.staging.as_mut().ok_or_else(|| bad(ROWS_TABLE, &"it precedes its head"))?;
    if matches!(wire.table, HEAD_TABLE | ROWS_TABLE) {
        return Err(bad(ROWS_TABLE, &"a restore cannot contain a restore"));
    }
    load_row(&mut Arc::make_mut(staging).state, wire.table, &wire.row)
}
