//! Snapshot files: the contents are read back unchanged, and damage is always detected.

use std::fs;
use std::path::Path;

use conclave_store::LogId;
use conclave_store::snapshot::{
    MAX_CHUNK_BYTES, SealingKey, SnapshotDir, SnapshotError, SnapshotFile, SnapshotHeader, SnapshotReader,
    SnapshotWriter, Summary,
};

fn key() -> SealingKey {
    SealingKey::new([42; 32])
}

fn header(index: u64) -> SnapshotHeader {
    let last = Some(LogId { term: 2, index });
    SnapshotHeader {
        cluster: [5; 16],
        lineage_epoch: 1,
        last,
        membership: b"members".to_vec(),
        created_at_ms: 77,
    }
}

fn write(dir: &Path, index: u64, salt: u8, chunks: &[(u32, Vec<u8>)]) -> SnapshotFile {
    let mut writer = SnapshotWriter::create(dir, header(index), &key(), |out| out.fill(salt)).unwrap();
    for (table, bytes) in chunks {
        writer.chunk(*table, bytes).unwrap();
    }
    writer.finish().unwrap()
}

fn read(path: &Path) -> Result<Vec<(u32, Vec<u8>)>, SnapshotError> {
    SnapshotReader::open(path, &key())?.collect()
}

fn verify(path: &Path) -> Result<Summary, SnapshotError> {
    SnapshotReader::open(path, &key())?.verify()
}

fn small() -> Vec<(u32, Vec<u8>)> {
    vec![(1, b"alice".to_vec()), (1, b"bob".to_vec()), (7, b"session".to_vec())]
}

#[test]
fn chunks_come_back_as_they_went_in() {
    let dir = tempfile::tempdir().unwrap();
    let mut chunks = small();
    chunks.push((9, vec![]));
    chunks.push((9, vec![3; MAX_CHUNK_BYTES]));
    // Bytes zstd cannot shrink.
    let noise = (0..MAX_CHUNK_BYTES as u64).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8);
    chunks.push((9, noise.collect()));
    let file = write(dir.path(), 12, 1, &chunks);
    assert_eq!(read(&file.path).unwrap(), chunks);
    let summary = verify(&file.path).unwrap();
    assert_eq!((summary.chunks, summary.roots.len()), (6, 3));
    assert_eq!(summary.file, file);
    assert_eq!(file.header, header(12));
    let error = SnapshotWriter::create(dir.path(), header(1), &key(), |_| {})
        .unwrap()
        .chunk(1, &vec![0; MAX_CHUNK_BYTES + 1]);
    assert!(matches!(error, Err(SnapshotError::TooLarge { .. })));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "an unfinished file leaves nothing");
}

#[test]
fn every_flipped_byte_and_every_truncation_of_a_file_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), 12, 1, &small());
    let good = fs::read(&file.path).unwrap();
    let bad_path = dir.path().join("bad");
    for at in 0..good.len() {
        for bit in [0x01, 0x80] {
            let mut bad = good.clone();
            bad[at] ^= bit;
            fs::write(&bad_path, bad).unwrap();
            let error = verify(&bad_path).expect_err(&format!("byte {at} flipped"));
            assert!(
                error.is_damage() || matches!(error, SnapshotError::OtherKey { .. }),
                "byte {at}: {error}"
            );
        }
        fs::write(&bad_path, &good[..at]).unwrap();
        assert!(verify(&bad_path).expect_err(&format!("cut at {at}")).is_damage());
    }
    fs::write(&bad_path, [&good[..], b"x"].concat()).unwrap();
    assert!(verify(&bad_path).unwrap_err().to_string().contains("behind the trailer"));
}

/// The frames of a file with their heads: after the header, each has its length at byte 9.
fn frames(bytes: &[u8], mut at: usize) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    while at < bytes.len() {
        let len = 13 + u32::from_be_bytes(bytes[at + 9..at + 13].try_into().unwrap()) as usize;
        out.push(bytes[at..at + len].to_vec());
        at += len;
    }
    out
}

#[test]
fn chunks_moved_dropped_doubled_or_taken_from_another_file_are_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let chunks: Vec<_> = (0..4).map(|n| (1, vec![n; 20])).collect();
    let one = fs::read(write(dir.path(), 1, 1, &chunks).path).unwrap();
    let two = fs::read(write(dir.path(), 1, 2, &chunks).path).unwrap();
    let start = 14 + u32::from_be_bytes(one[10..14].try_into().unwrap()) as usize + 16;
    let (head, own, other) = (&one[..start], frames(&one, start), frames(&two, start));
    let case = |order: &[&Vec<u8>]| {
        let path = dir.path().join("case");
        fs::write(
            &path,
            [head, &order.iter().flat_map(|frame| frame.iter().copied()).collect::<Vec<_>>()].concat(),
        )
        .unwrap();
        verify(&path)
    };
    let [a, b, c, d, end] = &own[..] else { panic!("{} frames", own.len()) };
    case(&[a, b, c, d, end]).unwrap();
    for (what, order) in [
        ("swapped", vec![b, a, c, d, end]),
        ("dropped", vec![a, b, c, end]),
        ("doubled", vec![a, b, b, c, d, end]),
        ("foreign", vec![a, &other[1], c, d, end]),
        ("foreign trailer", vec![a, b, c, d, &other[4]]),
        ("no trailer", vec![a, b, c, d]),
    ] {
        let error = case(&order).expect_err(what).to_string();
        assert!(error.contains("damaged at chunk"), "{what}: {error}");
    }
}

#[test]
fn another_key_is_named_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), 1, 1, &small());
    let error = SnapshotReader::open(&file.path, &SealingKey::new([43; 32])).err().unwrap();
    assert!(error.to_string().contains("sealed under another key"), "{error}");
    assert_eq!(format!("{:?}", key()), "SealingKey(..)");
}

#[test]
fn equal_states_have_equal_roots_under_different_salts() {
    let dir = tempfile::tempdir().unwrap();
    let roots =
        |salt, chunks: &[(u32, Vec<u8>)]| verify(&write(dir.path(), 1, salt, chunks).path).unwrap().roots;
    assert_eq!(roots(1, &small()), roots(2, &small()));
    assert_ne!(roots(1, &small()), roots(1, &small()[..2]));
}

#[test]
fn the_latest_good_file_is_found_past_a_bad_one_and_old_ones_leave() {
    let temp = tempfile::tempdir().unwrap();
    let dir = SnapshotDir::open(&temp.path().join("snapshots")).unwrap();
    assert!(dir.latest(&key()).unwrap().is_none());
    for index in [9, 100, 20] {
        write(dir.path(), index, 1, &small());
    }
    fs::write(dir.path().join("3.tmp"), b"half").unwrap();
    let newest = dir.latest(&key()).unwrap().unwrap();
    assert_eq!(newest.header.last.unwrap().index, 100, "by number, not by the words of a name");
    let mut bytes = fs::read(&newest.path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&newest.path, bytes).unwrap();
    assert_eq!(dir.latest(&key()).unwrap().unwrap().header.last.unwrap().index, 20);
    let error = dir.latest(&SealingKey::new([1; 32])).unwrap_err();
    assert!(
        matches!(error, SnapshotError::OtherKey { .. }),
        "a wrong key must not pass for no snapshot: {error}"
    );
    dir.prune(2).unwrap();
    dir.sweep_temp().unwrap();
    let left: Vec<_> = dir.log_ids().unwrap().iter().map(|id| id.index).collect();
    assert_eq!(left, [100, 20]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn a_received_file_counts_only_once_it_is_whole() {
    let temp = tempfile::tempdir().unwrap();
    let source = fs::read(write(temp.path(), 5, 1, &small()).path).unwrap();
    let dir = SnapshotDir::open(&temp.path().join("incoming")).unwrap();
    let receive = |bytes: &[u8]| {
        let mut incoming = dir.receive().unwrap();
        bytes.chunks(10).for_each(|part| incoming.write(part).unwrap());
        incoming.finish(&key())
    };
    receive(&source[..source.len() - 1]).unwrap_err();
    drop(dir.receive().unwrap());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    let file = receive(&source).unwrap();
    assert_eq!(read(&file.path).unwrap(), small());
    assert_eq!(dir.latest(&key()).unwrap(), Some(file));
}
