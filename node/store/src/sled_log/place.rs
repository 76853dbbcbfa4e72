//! The path of the engine's directory, and its replacement by another.
//!
//! ```text
//! current        the number of the directory in use, replaced atomically
//! mark           see `mark`
//! log-000001/    a sled directory
//! ```
//!
//! A directory is valid only once `current` names it, and `current` names only directories that are complete and
//! synced. Everything else here is left from a crash, and is removed at the next start.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::record::Facts;
use super::super::{StoreError, files};
use super::engine::{Engine, Writes};
use super::mark::Mark;
use super::verify;

/// Bytes copied in one batch of a rewrite.
const COPY_BATCH_BYTES: usize = 1024 * 1024;

pub(super) struct Place {
    root: PathBuf,
    number: u64,
}

impl Place {
    pub(super) fn create(root: &Path) -> Result<(Self, Engine), StoreError> {
        let place = Self { root: root.to_owned(), number: 1 };
        place.clear_interrupted_creation()?;
        files::create_dir(root)?;
        Mark::create(&place.mark())?;
        let engine = place.fresh(1)?;
        let mut writes = Writes::default();
        writes.facts(&Facts::default());
        engine.write(writes)?;
        place.publish(&engine, 1)?;
        Ok((place, engine))
    }

    pub(super) fn open(root: &Path) -> Result<(Self, Engine), StoreError> {
        let current = root.join("current");
        let text = match fs::read_to_string(&current) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(StoreError::damaged(root, "the log is missing"));
            }
            Err(e) => return Err(StoreError::io("read", &current)(e)),
        };
        let number =
            text.trim().parse().map_err(|_| StoreError::damaged(&current, "names no log directory"))?;
        let place = Self { root: root.to_owned(), number };
        if !place.dir(number).join("db").is_file() {
            return Err(StoreError::damaged(&place.dir(number), "the log is missing"));
        }
        place.remove_others()?;
        let engine = Engine::open(&place.dir(number))?;
        Ok((place, engine))
    }

    pub(super) fn mark(&self) -> PathBuf {
        self.root.join("mark")
    }

    /// Copies every entry and the facts into the next directory, checks the copy and makes it the current one.
    pub(super) fn copy(&self, old: &Engine) -> Result<Engine, StoreError> {
        let facts = old.facts()?.ok_or_else(|| StoreError::damaged(old.dir(), "its facts are missing"))?;
        let copy = self.fresh(self.number + 1)?;
        let (mut writes, mut bytes) = (Writes::default(), 0);
        for raw in old.raw_records(0, u64::MAX) {
            let (index, record) = raw?;
            bytes += record.len();
            writes.record(index, &record);
            if bytes >= COPY_BATCH_BYTES {
                copy.write(std::mem::take(&mut writes))?;
                bytes = 0;
            }
        }
        writes.facts(&facts);
        copy.write(writes)?;
        verify::verify(&copy, facts.sequence)?;
        self.publish(&copy, self.number + 1)?;
        Ok(copy)
    }

    /// Continues with the next directory, which [`Self::copy`] made current.
    pub(super) fn advance(&mut self) -> Result<(), StoreError> {
        self.number += 1;
        self.remove_others()
    }

    fn dir(&self, number: u64) -> PathBuf {
        self.root.join(format!("log-{number:06}"))
    }

    fn fresh(&self, number: u64) -> Result<Engine, StoreError> {
        let dir = self.dir(number);
        remove_dir(&dir)?;
        files::create_dir(&dir)?;
        Engine::open(&dir)
    }

    /// Syncs a complete directory, then records it as current.
    fn publish(&self, engine: &Engine, number: u64) -> Result<(), StoreError> {
        engine.sync()?;
        files::sync_tree(&self.dir(number))?;
        files::sync_dir(&self.root)?;
        files::replace(&self.root.join("current"), format!("{number}\n").as_bytes())
    }

    fn remove_others(&self) -> Result<(), StoreError> {
        let keep = self.dir(self.number);
        for entry in fs::read_dir(&self.root).map_err(StoreError::io("list", &self.root))? {
            let path = entry.map_err(StoreError::io("list", &self.root))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with("log-") && path != keep {
                remove_dir(&path)?;
            }
        }
        Ok(())
    }

    /// Removes the remains of an interrupted creation. It reported nothing durable, so they may go; anything more is an
    /// existing log.
    fn clear_interrupted_creation(&self) -> Result<(), StoreError> {
        let Ok(mut entries) = fs::read_dir(&self.root) else { return Ok(()) };
        if self.root.join("current").exists() {
            return Err(StoreError::Misuse(format!("{} already holds a log", self.root.display())));
        }
        let first = self.dir(1);
        let strange =
            entries.any(|entry| entry.is_ok_and(|entry| entry.path() != first && is_log_dir(&entry.path())));
        let used =
            first.exists() && Engine::open(&first)?.facts()?.is_some_and(|facts| facts != Facts::default());
        if strange || used || (self.mark().exists() && Mark::open(&self.mark())?.sequence() > 0) {
            return Err(StoreError::damaged(&self.root, "the file `current` is missing"));
        }
        remove_dir(&first)
    }
}

fn is_log_dir(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("log-"))
}

fn remove_dir(dir: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io("remove", dir)(e)),
        _ => Ok(()),
    }
}
