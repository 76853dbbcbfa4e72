//! Checks the system calls: no append is reported before an `fdatasync` of sled's file that began after the append's
//! bytes were written to the kernel. Needs strace; without it the test fails, because then nothing is proven.

use std::collections::{BTreeMap, HashMap};
use std::process::Command;

use super::child::{ARGS, Orders};

const APPENDS: u64 = 240;

#[test]
fn no_append_is_acknowledged_before_an_fdatasync_of_its_bytes() {
    let acks = check(&trace(false)).unwrap();
    assert_eq!(acks, APPENDS);
}

#[test]
fn a_store_that_acknowledges_without_syncing_is_caught() {
    let refusal = check(&trace(true)).unwrap_err();
    assert!(refusal.contains("acknowledged before"), "{refusal}");
}

fn trace(lying: bool) -> String {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("trace");
    let mut command = Command::new("strace");
    command.args([
        "-f",
        "-y",
        "-s",
        "4000000",
        "-e",
        "trace=fdatasync,fsync,write,pwrite64,sync_file_range",
        "-o",
    ]);
    command.arg(&log).arg(std::env::current_exe().unwrap()).args(ARGS);
    Orders { dir: dir.path(), count: APPENDS, lying }.give(&mut command);
    let output = command.output().expect("this test needs strace: apt-get install strace (make test does)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&std::fs::read(&log).unwrap()).into_owned()
}

/// The progress of each record to the disk.
#[derive(Default)]
struct Progress {
    /// Line on which the write holding the record returned.
    written: BTreeMap<u64, usize>,
    /// The line on which the latest successful sync of the data file began.
    synced_from: Option<usize>,
    /// The unfinished call of each thread: the line on which it began, and the text so far.
    unfinished: HashMap<String, (usize, String)>,
    acks: u64,
}

/// Reads a trace; returns the number of acknowledgements, or an error naming one that came too early.
fn check(trace: &str) -> Result<u64, String> {
    let mut progress = Progress::default();
    for (number, line) in trace.lines().enumerate() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        if let Some(begun) = call.strip_suffix("<unfinished ...>") {
            progress.begins(begun)?;
            progress.unfinished.insert(thread.to_owned(), (number, begun.to_owned()));
        } else if let Some((_, rest)) = call.split_once(" resumed>") {
            let (from, begun) =
                progress.unfinished.remove(thread).ok_or("a call resumed that never began")?;
            progress.returns(from, number, &format!("{begun}{rest}"));
        } else {
            progress.begins(call)?;
            progress.returns(number, number, call);
        }
    }
    Ok(progress.acks)
}

impl Progress {
    /// Handles the beginning of a call. An acknowledgement takes effect when its write begins.
    fn begins(&mut self, call: &str) -> Result<(), String> {
        if !call.starts_with("write(1<") {
            return Ok(());
        }
        let Some(index) = number_after(call, "ACK ") else { return Ok(()) };
        let written =
            self.written.get(&index).ok_or(format!("{index} was acknowledged before it was written"))?;
        if self.synced_from.is_none_or(|from| from <= *written) {
            return Err(format!("{index} was acknowledged before an fdatasync that began after its write"));
        }
        self.acks += 1;
        Ok(())
    }

    fn returns(&mut self, from: usize, number: usize, call: &str) {
        let on_data_file = call.split_once('>').is_some_and(|(head, _)| head.ends_with("/db"));
        if !on_data_file {
            return;
        }
        if call.starts_with("fdatasync(") && call.trim_end().ends_with("= 0") {
            self.synced_from = self.synced_from.max(Some(from));
        } else if call.starts_with("pwrite64(") && !call.contains(" = -1 ") {
            for part in call.split("RECORD-").skip(1) {
                if let Some(index) = number_after(part, "") {
                    // The engine may write an entry again when it compacts; the first write is the relevant one.
                    self.written.entry(index).or_insert(number);
                }
            }
        }
    }
}

fn number_after(text: &str, mark: &str) -> Option<u64> {
    let (_, rest) = text.split_once(mark)?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

const WRITE: &str = "7 pwrite64(5</d/log-000001/db>, \"..RECORD-3-...\", 16, 0) = 16\n";
const SYNC: &str = "7 fdatasync(6</d/log-000001/db>) = 0\n";
const ACK: &str = "8 write(1</out>, \"ACK 3\\n\", 6) = 6\n";

#[test]
fn the_checker_accepts_the_right_order_alone() {
    assert_eq!(check(&[WRITE, SYNC, ACK].concat()), Ok(1));
    for wrong in [[WRITE, ACK, SYNC], [SYNC, WRITE, ACK], [ACK, WRITE, SYNC]] {
        assert!(check(&wrong.concat()).is_err(), "{wrong:?}");
    }
    let no_sync = "7 sync_file_range(5</d/log-000001/db>, 0, 4096, 7) = 0\n";
    let other_file = SYNC.replace("/db>", "/mark>");
    let failed = SYNC.replace("= 0", "= -1 EIO (Input/output error)");
    for wrong in [no_sync, &other_file, &failed] {
        assert!(check(&[WRITE, wrong, ACK].concat()).is_err(), "{wrong}");
    }
}

#[test]
fn the_checker_sees_a_sync_that_began_too_early_or_ended_too_late() {
    let begun = "7 fdatasync(6</d/log-000001/db> <unfinished ...>\n";
    let ended = "7 <... fdatasync resumed>) = 0\n";
    assert_eq!(check(&[WRITE, begun, ended, ACK].concat()), Ok(1));
    let write = WRITE.replace("7 ", "9 ");
    assert!(check(&[begun, &write, ended, ACK].concat()).is_err());
    assert!(check(&[WRITE, begun, ACK, ended].concat()).is_err());
}
