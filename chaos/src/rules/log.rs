//! The replicated log.

use conclave_proto::command::v1::{self as pb, command::Body};
use prost::Message as _;

/// A committed entry.
#[derive(Clone, Debug)]
pub struct LoggedEntry {
    /// The bytes of a `LogEntry`; none for an entry without a command, such as a new leader's first.
    pub bytes: Option<Vec<u8>>,
    /// The decoded bytes, for the oracle.
    pub command: Option<LoggedCommand>,
}

/// A command in the log.
#[derive(Clone, Debug)]
pub struct LoggedCommand {
    /// The request id.
    pub request: [u8; 16],
    /// True if the log already contains this request, within the time for which it is remembered.
    pub repeated: bool,
    /// The command.
    pub body: Body,
}

/// The entries, from index 1.
#[derive(Debug, Default)]
pub struct ReplicatedLog(Vec<LoggedEntry>);

impl ReplicatedLog {
    /// Appends a new request.
    pub fn append(&mut self, at_ms: u64, request: [u8; 16], body: Body) {
        self.push(at_ms, LoggedCommand { request, repeated: false, body });
    }

    /// Appends a repeated request.
    pub fn append_again(&mut self, at_ms: u64, first: &LoggedCommand) {
        self.push(at_ms, LoggedCommand { repeated: true, ..first.clone() });
    }

    fn push(&mut self, at_ms: u64, command: LoggedCommand) {
        let sent = pb::Command { request_id: command.request.to_vec(), body: Some(command.body.clone()) };
        let bytes = pb::LogEntry { at_ms, command: sent.encode_to_vec() }.encode_to_vec();
        self.0.push(LoggedEntry { bytes: Some(bytes), command: Some(command) });
    }

    /// Appends a new leader's first entry.
    pub fn append_blank(&mut self) {
        self.0.push(LoggedEntry { bytes: None, command: None });
    }

    /// The entry at this index.
    pub fn entry(&self, index: u64) -> Option<&LoggedEntry> {
        self.0.get(usize::try_from(index.checked_sub(1)?).ok()?)
    }

    /// The last entry.
    pub fn last(&self) -> Option<&LoggedEntry> {
        self.0.last()
    }
}
