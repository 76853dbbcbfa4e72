//! Replaces the contents of a data directory that no process uses. The new contents are built as a whole beside the old
//! ones, then put in their place in one step that a crash cannot split. The old ones are set aside, never deleted.
//!
//! ```text
//! restoring/        log, snapshots, identity of the new contents; not valid without the mark
//! restored.mark     from here on the new contents are valid; holds the name of the directory below
//! aside-…/          log, snapshots, identity of the old contents
//! ```
//!
//! The mark decides. Before it exists, the directory is unchanged. Once it exists, every opening first finishes the
//! exchange, and nothing is read before that.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{StoreError, files};

pub(super) const STAGE: &str = "restoring";
pub(super) const MARK: &str = "restored.mark";
pub(super) const ASIDE_PREFIX: &str = "aside-";

/// The parts that are exchanged. The identity is the last: contents with an identity are complete.
const CONTENTS: [&str; 3] = ["log", "snapshots", "identity"];

/// Creates an empty directory for new contents. Removes the remains of an earlier attempt.
pub(super) fn begin(dir: &Path) -> Result<PathBuf, StoreError> {
    let stage = dir.join(STAGE);
    match fs::remove_dir_all(&stage) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(StoreError::io("remove", &stage)(e)),
        _ => files::create_dir(&stage)?,
    }
    Ok(stage)
}

/// Makes the contents of the stage valid, durably. The old ones go to `aside`, a name below `dir`.
pub(super) fn commit(dir: &Path, aside: &str) -> Result<(), StoreError> {
    files::sync_tree(&dir.join(STAGE))?;
    files::create_dir(&dir.join(aside))?;
    files::replace(&dir.join(MARK), aside.as_bytes())?;
    finish(dir)
}

/// True if there is a marked exchange that has not been finished.
pub(super) fn is_begun(dir: &Path) -> bool {
    dir.join(MARK).exists()
}

/// Finishes an exchange that was interrupted after its mark. Does nothing if there is none.
pub(super) fn finish(dir: &Path) -> Result<(), StoreError> {
    let mark = dir.join(MARK);
    let aside = match fs::read_to_string(&mark) {
        Ok(name) => name,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(StoreError::io("read", &mark)(e)),
    };
    if !aside.starts_with(ASIDE_PREFIX) || aside.contains('/') {
        let detail = format!("{} does not contain a directory name of conclave", mark.display());
        return Err(StoreError::BadIdentity { path: dir.to_owned(), detail });
    }
    for name in CONTENTS {
        exchange(dir, &dir.join(&aside), name)?;
    }
    // At this point the stage is empty.
    let stage = dir.join(STAGE);
    match fs::remove_dir(&stage) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(StoreError::io("remove", &stage)(e)),
        _ => {}
    }
    // If there were no old contents, nothing was set aside.
    let _ = fs::remove_dir(dir.join(&aside));
    fs::remove_file(&mark).map_err(StoreError::io("remove", &mark))?;
    files::sync_dir(dir)
}

/// Exchanges one part. Each step leaves a state from which these steps can continue.
fn exchange(dir: &Path, aside: &Path, name: &str) -> Result<(), StoreError> {
    let (new, here, old) = (dir.join(STAGE).join(name), dir.join(name), aside.join(name));
    if !new.exists() {
        return Ok(());
    }
    if here.exists() {
        files::rename(&here, &old)?;
    }
    files::rename(&new, &here)?;
    files::sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(dir: &Path, text: &str) {
        for name in ["log", "snapshots"] {
            fs::create_dir_all(dir.join(name)).unwrap();
            fs::write(dir.join(name).join("file"), text).unwrap();
        }
        fs::write(dir.join("identity"), text).unwrap();
    }

    fn content(dir: &Path) -> [Option<String>; 3] {
        ["log/file", "snapshots/file", "identity"].map(|name| fs::read_to_string(dir.join(name)).ok())
    }

    fn all(text: &str) -> [Option<String>; 3] {
        [(); 3].map(|()| Some(text.to_owned()))
    }

    #[test]
    fn cut_short_at_any_step_it_is_the_old_contents_or_the_new_ones() {
        // The number of renames after which the process dies. Covers each rename of an exchange.
        for done in 0..=6 {
            let dir = tempfile::tempdir().unwrap();
            let dir = dir.path();
            fill(dir, "old");
            let stage = begin(dir).unwrap();
            fill(&stage, "new");
            assert_eq!(content(dir), all("old"), "nothing counts before the mark");
            finish(dir).unwrap();
            assert_eq!(content(dir), all("old"));

            fs::create_dir(dir.join("aside-1")).unwrap();
            fs::write(dir.join(MARK), "aside-1").unwrap();
            let renames = CONTENTS.iter().flat_map(|name| {
                [
                    (dir.join(name), dir.join("aside-1").join(name)),
                    (dir.join(STAGE).join(name), dir.join(name)),
                ]
            });
            for (from, to) in renames.take(done) {
                fs::rename(from, to).unwrap();
            }
            finish(dir).unwrap();
            assert_eq!(content(dir), all("new"), "after {done} renames");
            assert_eq!(content(&dir.join("aside-1")), all("old"), "the old contents are kept");
            assert!(!dir.join(MARK).exists() && !dir.join(STAGE).exists());
            finish(dir).unwrap();
        }
    }

    #[test]
    fn an_empty_directory_gets_contents_and_nothing_aside() {
        let dir = tempfile::tempdir().unwrap();
        let stage = begin(dir.path()).unwrap();
        fs::write(stage.join("rubbish"), "of an attempt that was cut short").unwrap();
        let stage = begin(dir.path()).unwrap();
        fill(&stage, "new");
        commit(dir.path(), "aside-1").unwrap();
        assert_eq!(content(dir.path()), all("new"));
        assert!(!dir.path().join("aside-1").exists());
    }

    #[test]
    fn a_mark_that_points_elsewhere_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["", "..", "aside-/../..", "log"] {
            fs::write(dir.path().join(MARK), name).unwrap();
            assert!(finish(dir.path()).is_err(), "{name}");
        }
    }
}
