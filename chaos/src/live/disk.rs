//! A disk that can become full: for each node an ext4 file system of its own, in a file.

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

/// Size: enough for a log, its snapshots and a little more.
const BYTES: u64 = 128 * 1024 * 1024;
static PIECE: [u8; 64 * 1024] = [0xa5; 64 * 1024];

pub(super) struct SmallDisk {
    mounted: PathBuf,
}

impl SmallDisk {
    /// Creates and mounts a disk below `dir`. Needs root.
    pub(super) fn make(dir: &Path, place: u64) -> anyhow::Result<Self> {
        let (image, mounted) = (dir.join(format!("disk-{place}.img")), dir.join(format!("disk-{place}")));
        File::create(&image)?.set_len(BYTES)?;
        std::fs::create_dir(&mounted)?;
        // No blocks are reserved for root: otherwise the disk would never be full for root.
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mounted))?;
        Ok(Self { mounted })
    }

    pub(super) fn path(&self) -> &Path {
        &self.mounted
    }

    /// Writes until the disk is full.
    pub(super) fn fill(&self) -> anyhow::Result<()> {
        let mut file = File::create(self.filler())?;
        while file.write_all(&PIECE).is_ok() {}
        // The rest, for which a whole piece was too large.
        while file.write_all(&[0xa5; 512]).is_ok() {}
        Ok(())
    }

    pub(super) fn free(&self) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.filler())?)
    }

    fn filler(&self) -> PathBuf {
        self.mounted.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, because a node that was killed may still have a file open.
        let _ = Command::new("umount").arg("-l").arg(&self.mounted).output();
    }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().context("small disks need root, mount and mkfs.ext4")?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{command:?}: {said}");
    Ok(())
}
