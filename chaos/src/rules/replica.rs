//! One copy of the state: it applies the log, keeps its last snapshot, and loses everything else when it crashes.

use conclave_proto::command::v1 as pb;
use conclave_state::{
    IndexedEntry, Reply, State, apply,
    snapshot::{Loader, chunks},
};
use prost::Message as _;

use super::{
    log::{LoggedEntry, ReplicatedLog},
    mutation::ReplicaMutation,
};
use crate::oracle::{AppliedStep, Oracle, Violation};

/// The part of a replica that survives a crash, beside the log.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    /// The last index that it includes.
    pub index: u64,
    chunks: Vec<(u32, Vec<u8>)>,
}

/// One copy of the state.
#[derive(Debug)]
pub(super) struct Replica {
    id: usize,
    mutation: ReplicaMutation,
    state: State,
    snapshot: Option<Snapshot>,
    last_reply: Option<Reply>,
}

impl Replica {
    /// An empty replica.
    pub(super) fn new(id: usize, mutation: ReplicaMutation) -> Self {
        Self { id, mutation, state: State::default(), snapshot: None, last_reply: None }
    }

    /// Its state.
    pub(super) const fn state(&self) -> &State {
        &self.state
    }

    /// Its last reply.
    pub(super) const fn last_reply(&self) -> Option<&Reply> {
        self.last_reply.as_ref()
    }

    /// Its last snapshot.
    pub(super) fn snapshot(&self) -> Option<Snapshot> {
        self.snapshot.clone()
    }

    /// Applies at most this many entries that it does not have yet; returns the number applied.
    pub(super) fn apply(
        &mut self,
        log: &ReplicatedLog,
        most: u64,
        oracle: &mut Oracle,
    ) -> Result<u64, Violation> {
        let mut done = 0;
        while let Some(entry) = log.entry(self.state.index() + 1).filter(|_| done < most) {
            self.step(entry, oracle)?;
            done += 1;
        }
        Ok(done)
    }

    fn step(&mut self, entry: &LoggedEntry, oracle: &mut Oracle) -> Result<(), Violation> {
        let (index, before) = (self.state.index() + 1, self.state.clone());
        self.last_reply = None;
        match entry.bytes.as_deref().filter(|_| !self.mutation.skips(self.id, index)) {
            None => self.state = before.having_seen(index),
            Some(bytes) => {
                let bytes = self.stamped(bytes);
                let applied = apply(&before, &IndexedEntry { index, bytes: &bytes })
                    .map_err(|halt| self.broken(index, format!("the replica halted: {halt}")))?;
                self.state = applied.state;
                self.last_reply = Some(applied.reply);
            }
        }
        let reply = self.last_reply.as_ref();
        oracle.applied(&AppliedStep {
            replica: self.id,
            index,
            entry,
            before: &before,
            after: &self.state,
            reply,
        })
    }

    /// The entry as the leader stamped it, unless this replica uses a wrong time on purpose.
    fn stamped(&self, bytes: &[u8]) -> Vec<u8> {
        let error_ms = self.mutation.stamp_error_ms(self.id);
        match pb::LogEntry::decode(bytes) {
            Ok(mut entry) if error_ms != 0 => {
                entry.at_ms += error_ms;
                entry.encode_to_vec()
            }
            _ => bytes.to_vec(),
        }
    }

    /// Takes a snapshot of its state.
    pub(super) fn take_snapshot(&mut self) {
        let chunks = chunks(&self.state).filter(|(table, _)| !self.mutation.omits(*table)).collect();
        self.snapshot = Some(Snapshot { index: self.state.index(), chunks });
    }

    /// Crashes, and restarts from its last snapshot. The log is still there.
    pub(super) fn restart(&mut self, oracle: &mut Oracle) -> Result<(), Violation> {
        self.last_reply = None;
        if let Some(snapshot) = self.snapshot.clone() {
            return self.load(&snapshot, oracle);
        }
        self.state = State::default();
        Ok(())
    }

    /// Installs another replica's snapshot.
    pub(super) fn install(&mut self, snapshot: Snapshot, oracle: &mut Oracle) -> Result<(), Violation> {
        self.load(&snapshot, oracle)?;
        self.snapshot = Some(snapshot);
        Ok(())
    }

    fn load(&mut self, snapshot: &Snapshot, oracle: &mut Oracle) -> Result<(), Violation> {
        let mut loader = Loader::default();
        for (table, chunk) in &snapshot.chunks {
            loader.chunk(*table, chunk).map_err(|error| {
                self.broken(snapshot.index, format!("a snapshot cannot be read: {error}"))
            })?;
        }
        self.state = loader.finish();
        if self.mutation.lost_entries() != 0 {
            self.state = self.state.having_seen(snapshot.index + self.mutation.lost_entries());
        }
        oracle.restored(self.id, &self.state)
    }

    fn broken(&self, index: u64, what: String) -> Violation {
        Violation { invariant: "replicas-go-on", replica: self.id, index, what }
    }
}
