//! `kill -9` at arbitrary points: every acknowledged entry is there, and the chain is valid.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use conclave_store::{LogStore, SledLog};

use super::child::{ARGS, Orders, payload};

const ROUNDS: u64 = 20;

#[test]
fn every_acknowledged_entry_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = None;
    for round in 0..ROUNDS {
        let mut command = Command::new(std::env::current_exe().unwrap());
        Orders { dir: dir.path(), count: 1_000_000, lying: false }.give(&mut command);
        let mut child = command.args(ARGS).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        // Uneven distances, so that the kills fall on starts, group commits, purges and page rewrites alike.
        let patience = 1 + (round * 7919) % 613;
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        for line in lines.by_ref() {
            if let Some(index) = parse_ack(&line.unwrap()) {
                acknowledged = Some(index);
                seen += 1;
            }
            if seen == patience {
                break;
            }
        }
        assert_eq!(seen, patience, "the child of round {round} ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
        // Lines that it wrote before it died are acknowledgements too.
        for line in lines {
            acknowledged = line.ok().as_deref().and_then(parse_ack).or(acknowledged);
        }
        check(&dir.path().join("log"), acknowledged.unwrap());
    }
}

fn parse_ack(line: &str) -> Option<u64> {
    line.split_once("ACK ")?.1.trim().parse().ok()
}

fn check(root: &std::path::Path, acknowledged: u64) {
    let log = SledLog::open(root).expect("a killed node's log opens");
    let state = log.state();
    assert!(
        state.last.unwrap().index >= acknowledged,
        "{acknowledged} was acknowledged, the log ends at {:?}",
        state.last
    );
    for record in log.reader().read(0, u64::MAX, usize::MAX).unwrap() {
        assert_eq!(record.payload[2..], payload(record.index), "entry {}", record.index);
    }
}
