//! A restore through the log of a running cluster: begun, sent in pieces, put in force in one step. The leader may die
//! at any point: every piece has a name, so it is counted once. Nothing changes before the last entry.

use std::time::Duration;

use conclave_proto::command::v1::{AbortRestore, BeginRestore, CommitRestore, StageRows, command::Body};
use conclave_state::{
    Stamp, State,
    restore::{MAX_PIECE_BYTES, MergeOptions, PieceHash, RestoreTarget, restorable_subset, restored},
    snapshot::chunks_of,
};
use tokio::time::{Instant, sleep};

use conclave_auth::write_key::WriteKey;
use conclave_cluster::{Cluster, CommittedWrite, ProposeError};

/// The time for which one entry is retried under its name: two elections and a node that restarts.
const ENTRY_LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);

/// The reason why nothing was restored. The staged pieces are discarded after an hour at the latest.
#[derive(Debug, thiserror::Error)]
pub enum RunningError {
    #[error(transparent)]
    Propose(#[from] ProposeError),
    #[error("the restore was cancelled")]
    GivenUp,
}

/// The state that the restore would make of `newest`.
pub fn preview(older: &State, newest: &State, enable_returning: bool) -> State {
    let options = MergeOptions {
        index: newest.index(),
        at: Stamp(0),
        target: RestoreTarget::Live,
        former_epoch: None,
        last_node_id: 0,
        keep_sessions: false,
        enable_returning,
        reset_log_time: false,
    };
    restored(older, newest, &options)
}

/// Puts `older` in force. `step` receives (bytes sent, bytes in total), and returns false to stop.
///
/// # Errors
/// [`RunningError`].
pub async fn restore(
    cluster: &Cluster,
    write_key: &WriteKey,
    older: &State,
    source: &str,
    enable_returning: bool,
    mut step: impl FnMut(u64, u64) -> bool,
) -> Result<CommittedWrite, RunningError> {
    let restore_id = write_key.id("restore").to_vec();
    let log = Log { cluster, write_key };
    log.give(
        "begin",
        Body::BeginRestore(BeginRestore { restore_id: restore_id.clone(), source: source.into() }),
    )
    .await?;
    match log.bring(&restorable_subset(older), &restore_id, &mut step).await {
        Ok((pieces, hash)) => {
            let commit = CommitRestore { restore_id, pieces, hash: hash.to_vec(), enable_returning };
            Ok(log.give("commit", Body::CommitRestore(commit)).await?)
        }
        Err(error) => {
            // If the command cannot be sent now, the staged pieces expire by themselves.
            let _ = log.give("abort", Body::AbortRestore(AbortRestore { restore_id })).await;
            Err(error)
        }
    }
}

struct Log<'a> {
    cluster: &'a Cluster,
    write_key: &'a WriteKey,
}

impl Log<'_> {
    async fn bring(
        &self,
        older: &State,
        restore_id: &[u8],
        step: &mut impl FnMut(u64, u64) -> bool,
    ) -> Result<(u64, PieceHash), RunningError> {
        let of = chunks_of(older, MAX_PIECE_BYTES).map(|(_, chunk)| chunk.len() as u64).sum();
        let (mut sequence, mut done, mut hash) = (0, 0, PieceHash::start());
        for (table, chunk) in chunks_of(older, MAX_PIECE_BYTES) {
            for rows in chunk.chunks(MAX_PIECE_BYTES) {
                hash = hash.with(table, rows);
                done += rows.len() as u64;
                let rows = rows.to_vec();
                let piece = StageRows { restore_id: restore_id.to_vec(), sequence, table, rows };
                self.give(&format!("piece {sequence}"), Body::StageRows(piece)).await?;
                sequence += 1;
                if !step(done, of) {
                    return Err(RunningError::GivenUp);
                }
            }
        }
        Ok((sequence, hash))
    }

    /// Proposes one entry, and retries it under one name while the write is refused or its outcome is unknown.
    async fn give(&self, label: &str, body: Body) -> Result<CommittedWrite, ProposeError> {
        let request = self.write_key.then(label).request();
        let deadline = Instant::now() + ENTRY_LIMIT;
        loop {
            match self.cluster.propose(request, body.clone()).await {
                Err(ProposeError::Unavailable | ProposeError::Busy | ProposeError::Unknown)
                    if Instant::now() < deadline =>
                {
                    sleep(PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }
}
