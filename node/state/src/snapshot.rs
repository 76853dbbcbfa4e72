//! One walk over all tables. It yields the whole state, which is written to snapshots, sent to learners, and hashed.
//!
//! A table that is missing here would be missing after a restore, so the test `every_table_survives_a_snapshot` fills
//! each and compares. Rows are in key order, encoded by prost without maps: equal states give equal bytes on every
//! node.

use std::sync::Arc;

use prost::Message;
use sha2::{Digest as _, Sha256};

use conclave_proto::state::v1 as rows;

use crate::{
    reply::Refusal,
    restore::staging,
    secret::SecretInUse,
    stamp::Stamp,
    state::{Meta, State},
    system::ChangedTerms,
};

/// A row of one table, in memory and on the wire.
pub(crate) trait Row: Sized {
    const TABLE: u32;
    type Wire: Message + Default;
    fn to_wire(&self) -> Self::Wire;
    fn from_wire(wire: Self::Wire) -> Result<Self, Refusal>;
    /// Inserts the row and its derived index entries.
    fn put(self, state: &mut State);
}

/// A row of a snapshot that cannot be loaded. The whole snapshot is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// A table of a newer version.
    #[error("the snapshot has a table {0} that this version does not know; upgrade this node")]
    UnknownTable(u32),
    /// Bytes that are not a row of this table.
    #[error("a row of table {table} cannot be read: {reason}")]
    BadRow {
        /// The table's number.
        table: u32,
        /// The parse error.
        reason: String,
    },
}

macro_rules! tables {
    ($($field:ident: $row:ty),* $(,)?) => {
        /// Every row of every table, in order, as (table, encoded row).
        pub fn rows(state: &State) -> impl Iterator<Item = (u32, Vec<u8>)> + Send + '_ {
            let meta = std::iter::once((META_TABLE, meta_to_wire(&state.meta).encode_to_vec()));
            let tables = meta$(.chain(state.$field.values().map(|row| (<$row as Row>::TABLE, row.to_wire().encode_to_vec()))))*;
            tables.chain(staging::rows(state))
        }

        pub(crate) fn load_row(state: &mut State, table: u32, bytes: &[u8]) -> Result<(), LoadError> {
            match table {
                META_TABLE => state.meta = meta_from_wire(&decode(table, bytes)?),
                $(<$row as Row>::TABLE => read::<$row>(bytes)?.put(state),)*
                staging::HEAD_TABLE => staging::load_head(state, decode(table, bytes)?)?,
                staging::ROWS_TABLE => staging::load_staged(state, &decode(table, bytes)?)?,
                other => return Err(LoadError::UnknownTable(other)),
            }
            Ok(())
        }
    };
}

tables! {
    users: crate::user::User,
    passwords: crate::user::PasswordHash,
    groups: crate::group::Group,
    applications: crate::application::Application,
    clients: crate::client::Client,
    sessions: crate::session::Session,
    app_sessions: crate::session::AppSession,
    grants: crate::grant::Grant,
    families: crate::grant::RefreshFamily,
    keys: crate::key::SigningKey,
    tokens: crate::token::ApiToken,
    app_passwords: crate::app_password::AppPassword,
    tickets: crate::system::SpentTicket,
    throttles: crate::throttle::Throttle,
    requests: crate::system::RememberedReply,
    outbox: crate::outbox::OutboxItem,
    pushed: crate::pushed::PushedRequest,
    devices: crate::device::DeviceRequest,
    consents: crate::consent::Consent,
    revoked_access: crate::access::RevokedAccess,
    upstreams: crate::upstream::Upstream,
    identities: crate::upstream::LinkedIdentity,
    policies: crate::policy::ApplicationPolicy,
    invitations: crate::upstream::Invitation,
    pictures: crate::picture::Picture,
    former_names: crate::user::FormerName,
}

const META_TABLE: u32 = 1;

/// Bytes of rows in one chunk: a reader never needs more memory than this for a chunk.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// The whole state as chunks of length-delimited rows, each chunk of one table and about [`CHUNK_BYTES`] long.
pub fn chunks(state: &State) -> impl Iterator<Item = (u32, Vec<u8>)> + Send + '_ {
    chunks_of(state, CHUNK_BYTES)
}

/// The whole state in chunks of about `bytes`; a chunk is longer if a single row is.
pub fn chunks_of(state: &State, bytes: usize) -> impl Iterator<Item = (u32, Vec<u8>)> + Send + '_ {
    let mut rows = rows(state).peekable();
    std::iter::from_fn(move || {
        let (table, first) = rows.next()?;
        let mut chunk = Vec::with_capacity(first.len() + 10);
        append(&mut chunk, &first);
        while let Some((_, row)) = rows.next_if(|(t, row)| *t == table && chunk.len() + row.len() < bytes) {
            append(&mut chunk, &row);
        }
        Some((table, chunk))
    })
}

fn append(chunk: &mut Vec<u8>, row: &[u8]) {
    prost::encoding::encode_varint(row.len() as u64, chunk);
    chunk.extend_from_slice(row);
}

/// Builds a state from chunks, in the order in which [`chunks`] yields them.
#[derive(Debug, Default)]
pub struct Loader(State);

impl Loader {
    /// Loads one chunk.
    ///
    /// # Errors
    /// [`LoadError`] naming the table.
    pub fn chunk(&mut self, table: u32, bytes: &[u8]) -> Result<(), LoadError> {
        match self.piece(table, bytes)? {
            [] => Ok(()),
            _ => Err(bad(table, &"the chunk ends inside a row")),
        }
    }

    /// Loads the complete rows; returns the rest, the beginning of an incomplete row.
    ///
    /// # Errors
    /// [`LoadError`] naming the table.
    pub(crate) fn piece<'a>(&mut self, table: u32, mut bytes: &'a [u8]) -> Result<&'a [u8], LoadError> {
        while !bytes.is_empty() {
            let mut rest = bytes;
            let Ok(length) = prost::encoding::decode_varint(&mut rest) else {
                // The longest length has ten bytes: anything longer without a valid length is damaged.
                return if bytes.len() < 10 { Ok(bytes) } else { Err(bad(table, &"a row has no length")) };
            };
            let Some((row, rest)) = rest.split_at_checked(usize::try_from(length).unwrap_or(usize::MAX))
            else {
                return Ok(bytes);
            };
            load_row(&mut self.0, table, row)?;
            bytes = rest;
        }
        Ok(bytes)
    }

    /// Continues with an existing state.
    pub(crate) const fn onto(state: State) -> Self {
        Self(state)
    }

    /// The state, after all chunks are loaded.
    pub fn finish(self) -> State {
        self.0
    }
}

/// SHA-256 over every row of every table: equal at equal index on all nodes.
pub fn digest(state: &State) -> [u8; 32] {
    hash(rows(state))
}

/// SHA-256 over every row except the state's own numbers (index, clock): a replayed request must leave it unchanged.
pub fn digest_of_tables(state: &State) -> [u8; 32] {
    hash(rows(state).filter(|(table, _)| *table != META_TABLE))
}

fn hash(rows: impl Iterator<Item = (u32, Vec<u8>)>) -> [u8; 32] {
    let mut hash = Sha256::new();
    for (table, row) in rows {
        hash.update(table.to_be_bytes());
        hash.update((row.len() as u64).to_be_bytes());
        hash.update(row);
    }
    hash.finalize().into()
}

fn read<R: Row>(bytes: &[u8]) -> Result<R, LoadError> {
    R::from_wire(decode(R::TABLE, bytes)?).map_err(|refusal| bad(R::TABLE, &refusal))
}

fn decode<M: Message + Default>(table: u32, bytes: &[u8]) -> Result<M, LoadError> {
    M::decode(bytes).map_err(|e| bad(table, &e))
}

pub(crate) fn bad(table: u32, reason: &dyn std::fmt::Display) -> LoadError {
    LoadError::BadRow { table, reason: reason.to_string() }
}

fn meta_to_wire(meta: &Meta) -> rows::MetaRow {
    rows::MetaRow {
        index: meta.index,
        clock_ms: meta.clock.0,
        level: meta.level,
        revocation_epoch: meta.revocation_epoch,
        next_outbox: meta.next_outbox,
        lease_terms: meta.lease_terms.map(ChangedTerms::to_wire),
        last_node_id: meta.last_node_id,
        former_epochs: meta.former_epochs.clone(),
        secret: meta.secret.as_deref().map(SecretInUse::to_wire),
    }
}

fn meta_from_wire(wire: &rows::MetaRow) -> Meta {
    Meta {
        index: wire.index,
        clock: Stamp(wire.clock_ms),
        level: wire.level,
        revocation_epoch: wire.revocation_epoch,
        next_outbox: wire.next_outbox,
        lease_terms: wire.lease_terms.as_ref().map(ChangedTerms::from_wire),
        last_node_id: wire.last_node_id,
        former_epochs: wire.former_epochs.clone(),
        secret: wire.secret.as_ref().and_then(SecretInUse::from_wire).map(Arc::new),
    }
}
