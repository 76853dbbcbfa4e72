//! A log whose disk the test controls: it can stall, and it can fail.

use std::sync::{Arc, Condvar, Mutex};

use conclave_store::{Flush, LogReader, LogState, LogStore, LogWriter, Op, SledLog, StoreError};

#[derive(Clone, Copy, Default, PartialEq)]
enum Disk {
    #[default]
    Works,
    StandsStill,
    Broken,
}

#[derive(Clone, Default)]
pub(super) struct Gate(Arc<(Mutex<Disk>, Condvar)>);

impl Gate {
    pub(super) fn close(&self) {
        self.set(Disk::StandsStill);
    }

    pub(super) fn open(&self) {
        self.set(Disk::Works);
    }

    pub(super) fn break_it(&self) {
        self.set(Disk::Broken);
    }

    fn set(&self, disk: Disk) {
        *self.0.0.lock().unwrap() = disk;
        self.0.1.notify_all();
    }

    fn pass(&self) -> Result<(), StoreError> {
        let disk = self.0.1.wait_while(self.0.0.lock().unwrap(), |disk| *disk == Disk::StandsStill).unwrap();
        if *disk == Disk::Broken {
            Err(StoreError::Stopped("the test broke the disk".into()))
        } else {
            Ok(())
        }
    }
}

pub(super) struct Gated {
    log: SledLog,
    gate: Gate,
}

impl Gated {
    pub(super) fn writer(log: SledLog, gate: Gate) -> Result<LogWriter, StoreError> {
        LogWriter::start(Self { log, gate })
    }
}

impl LogStore for Gated {
    fn commit(&mut self, ops: Vec<Op>, flush: Flush) -> Result<(), StoreError> {
        self.gate.pass()?;
        self.log.commit(ops, flush)
    }

    fn state(&self) -> LogState {
        self.log.state()
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        self.log.reader()
    }

    fn idle(&mut self) -> Result<(), StoreError> {
        self.log.idle()
    }
}
