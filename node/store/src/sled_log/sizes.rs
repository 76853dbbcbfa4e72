//! The size of the entries in bytes, kept without reading them: the snapshot rule and the rewrite rule need it often.

use std::collections::BTreeMap;

/// Entries counted together: 64 MiB of small entries then need about a thousand counters.
const BLOCK: u64 = 256;

#[derive(Debug, Default)]
pub(super) struct Sizes {
    blocks: BTreeMap<u64, u64>,
    total: u64,
}

impl Sizes {
    pub(super) fn add(&mut self, index: u64, bytes: usize) {
        *self.blocks.entry(index / BLOCK).or_default() += bytes as u64;
        self.total += bytes as u64;
    }

    pub(super) fn remove(&mut self, index: u64, bytes: usize) {
        if let Some(block) = self.blocks.get_mut(&(index / BLOCK)) {
            *block = block.saturating_sub(bytes as u64);
            if *block == 0 {
                self.blocks.remove(&(index / BLOCK));
            }
        }
        self.total = self.total.saturating_sub(bytes as u64);
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Bytes of the entries above `index`, counting its whole block.
    pub(super) fn above(&self, index: u64) -> u64 {
        self.blocks.range(index / BLOCK..).map(|(_, bytes)| bytes).sum()
    }
}
