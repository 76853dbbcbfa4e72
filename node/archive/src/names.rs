//! The names of objects. A name is written once and never again: it contains a random part, so that an object lock may
//! forbid overwriting, and two leaders that overlap write two objects.
//!
//! ```text
//! <cluster>/log/<epoch>/<first>-<last>-<stamp>-n<node>-<random>.segment
//! <cluster>/journal/<epoch>/<first>-<last>-<stamp>-n<node>-<random>.segment
//! <cluster>/snapshots/<epoch>/<index>-<stamp>-n<node>-<random>.snapshot
//! ```
//!
//! The cluster is 32 hex digits. Numbers are zero-padded, so that names sort as indexes do. The stamp is the time of
//! the last entry, or for a snapshot the time it was taken. Names are not trusted: only the sealed content is.

use std::fmt::Write as _;

use conclave_crypto::hex;

/// Digits of an index or an epoch.
const DIGITS: usize = 20;

/// The kind of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectKind {
    Log,
    RevocationJournal,
    Snapshot,
}

impl ObjectKind {
    pub const fn folder(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::RevocationJournal => "journal",
            Self::Snapshot => "snapshots",
        }
    }

    const fn suffix(self) -> &'static str {
        match self {
            Self::Log | Self::RevocationJournal => "segment",
            Self::Snapshot => "snapshot",
        }
    }
}

/// The facts in an object's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    pub name: String,
    pub kind: ObjectKind,
    pub epoch: u64,
    /// The first entry covered; for a snapshot, the last one it contains.
    pub first: u64,
    pub last: u64,
    /// Unix milliseconds.
    pub at_ms: u64,
    pub size_bytes: u64,
}

/// The facts for the name of a new object.
#[derive(Debug, Clone, Copy)]
pub struct NewName {
    pub cluster: [u8; 16],
    pub kind: ObjectKind,
    pub epoch: u64,
    pub first: u64,
    pub last: u64,
    pub at_ms: u64,
    pub node: u64,
    pub random: u64,
}

impl NewName {
    pub fn text(&self) -> String {
        let Self { kind, first, last, at_ms, node, random, .. } = self;
        let mut name = folder(&self.cluster, *kind, self.epoch);
        let digits = DIGITS;
        // Writing to a String does not fail.
        let _ = match kind {
            ObjectKind::Snapshot => write!(name, "/{last:0digits$}-{at_ms:013}-n{node}-{random:016x}"),
            ObjectKind::Log | ObjectKind::RevocationJournal => {
                write!(name, "/{first:0digits$}-{last:0digits$}-{at_ms:013}-n{node}-{random:016x}")
            }
        };
        format!("{name}.{}", kind.suffix())
    }
}

/// The folder of the objects of a kind and an epoch.
pub fn folder(cluster: &[u8; 16], kind: ObjectKind, epoch: u64) -> String {
    format!("{}/{epoch:0DIGITS$}", kind_folder(cluster, kind))
}

/// The folder of the objects of a kind.
pub fn kind_folder(cluster: &[u8; 16], kind: ObjectKind) -> String {
    format!("{}/{}", hex::encode(cluster), kind.folder())
}

/// A name that sorts before every segment that begins at `first` or later, and after all others.
pub fn before(cluster: &[u8; 16], kind: ObjectKind, epoch: u64, first: u64) -> String {
    format!("{}/{first:0DIGITS$}", folder(cluster, kind, epoch))
}

/// Parses the cluster from the name of a top folder.
pub fn parse_cluster(folder: &str) -> Option<[u8; 16]> {
    let is_hex = folder.len() == 32 && folder.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = u128::from_str_radix(folder, 16).ok().filter(|_| is_hex)?;
    Some(number.to_be_bytes())
}

/// Parses a name. `None` for a name that is not of an archive object: such an object is left alone.
pub fn parse(name: &str, size_bytes: u64) -> Option<Object> {
    let mut parts = name.split('/').rev();
    let (file, epoch, folder) = (parts.next()?, parts.next()?, parts.next()?);
    let kind = [ObjectKind::Log, ObjectKind::RevocationJournal, ObjectKind::Snapshot]
        .into_iter()
        .find(|kind| kind.folder() == folder)?;
    let mut fields = file.strip_suffix(kind.suffix())?.strip_suffix('.')?.split('-');
    let mut number = || -> Option<u64> { fields.next()?.parse().ok() };
    let first = number()?;
    let last = if kind == ObjectKind::Snapshot { first } else { number()? };
    let at_ms = number()?;
    fields.next()?.strip_prefix('n')?.parse::<u64>().ok()?;
    let epoch = epoch.parse().ok()?;
    (first <= last).then(|| Object { name: name.to_owned(), kind, epoch, first, last, at_ms, size_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_sort_as_indexes_do() {
        let name = |kind, first, last| {
            NewName {
                cluster: [7; 16],
                kind,
                epoch: 2,
                first,
                last,
                at_ms: 1_800_000_000_000,
                node: 3,
                random: 9,
            }
            .text()
        };
        for kind in [ObjectKind::Log, ObjectKind::RevocationJournal] {
            let object = parse(&name(kind, 5, 90), 17).unwrap();
            assert_eq!((object.kind, object.epoch, object.first, object.last), (kind, 2, 5, 90));
            assert_eq!((object.at_ms, object.size_bytes), (1_800_000_000_000, 17));
        }
        let snapshot = parse(&name(ObjectKind::Snapshot, 0, 90), 1).unwrap();
        assert_eq!((snapshot.first, snapshot.last), (90, 90));
        assert!(name(ObjectKind::Log, 9, 12) < name(ObjectKind::Log, 10, 11));
        let mark = before(&[7; 16], ObjectKind::Log, 2, 10);
        assert!(name(ObjectKind::Log, 9, 12) < mark && mark < name(ObjectKind::Log, 10, 11));
        assert_eq!(parse_cluster(name(ObjectKind::Log, 1, 1).split('/').next().unwrap()), Some([7; 16]));
    }

    #[test]
    fn foreign_names_are_none_of_ours() {
        let good = "0/log/1/1-2-3-n1-ff.segment";
        assert!(parse(good, 0).is_some());
        for odd in [
            "",
            "log",
            "0/log/1/2-1-3-n1-ff.segment",
            "0/log/x/1-2-3-n1-f.segment",
            "0/log/1/1-2-3-n1-ff.tmp",
            "0/other/1/1-2-3-n1-f.segment",
        ] {
            assert_eq!(parse(odd, 0), None, "{odd}");
        }
    }
}
