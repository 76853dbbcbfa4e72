//! Prints durable appends per second of the real log: 300-byte entries through the writer, a batch at a time, each
//! batch waited for. `cargo run --release -p conclave-node --example log_appends [DIRECTORY]`

use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::Context;
use conclave_store::{Flush, LogRecord, LogWriter, Op, SledLog};

const ENTRY_BYTES: usize = 300;
const RUN: Duration = Duration::from_secs(3);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let parent = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    for batch in [1, 16, 64] {
        let dir = tempfile::tempdir_in(&parent)?;
        let writer = LogWriter::start(SledLog::create(&dir.path().join("log"))?)?;
        let (mut next, mut slowest, started) = (0, Duration::ZERO, Instant::now());
        while started.elapsed() < RUN {
            let records = (next..next + batch)
                .map(|index| LogRecord { term: 1, index, payload: vec![b'x'; ENTRY_BYTES] })
                .collect();
            let (tell, told) = channel();
            let begun = Instant::now();
            let done = Box::new(move |result| tell.send(result).unwrap_or_default());
            writer.submit(vec![Op::Append(records)], Flush::Durable, done).await;
            told.recv().context("the writer has gone")??;
            slowest = slowest.max(begun.elapsed());
            next += batch;
        }
        let seconds = started.elapsed().as_secs_f64();
        let entries = u32::try_from(next).map_or(f64::MAX, f64::from);
        println!("batch {batch}: {:.0} entries/s, slowest commit {slowest:.1?}", entries / seconds);
    }
    Ok(())
}
