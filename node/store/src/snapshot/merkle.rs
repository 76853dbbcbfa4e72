//! A Merkle tree over the chunks of one table, kept as the roots of its complete subtrees: `log2(n)` hashes in memory.
//! Leaves and nodes are hashed under different prefixes (as RFC 9162 §2.1 does), so neither can be mistaken for the
//! other.

use conclave_crypto::mac::sha256_of;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Merkle {
    /// Roots of complete subtrees, the largest first.
    subtrees: Vec<[u8; 32]>,
    leaves: u64,
}

impl Merkle {
    pub(super) fn push(&mut self, chunk: &[u8]) {
        let mut root = sha256_of(&[&[0], chunk]);
        let mut merges = self.leaves.trailing_ones();
        while merges > 0
            && let Some(left) = self.subtrees.pop()
        {
            root = node(&left, &root);
            merges -= 1;
        }
        self.subtrees.push(root);
        self.leaves += 1;
    }

    pub(super) fn leaves(&self) -> u64 {
        self.leaves
    }

    pub(super) fn root(&self) -> [u8; 32] {
        let mut subtrees = self.subtrees.iter().rev().copied();
        let smallest = subtrees.next().unwrap_or_else(|| sha256_of(&[]));
        subtrees.fold(smallest, |right, left| node(&left, &right))
    }
}

fn node(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    sha256_of(&[&[1], left, right])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition in RFC 9162, literally: split at the largest power of two below n.
    fn by_definition(leaves: &[Vec<u8>]) -> [u8; 32] {
        match leaves {
            [] => sha256_of(&[]),
            [leaf] => sha256_of(&[&[0], leaf]),
            _ => {
                let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
                node(&by_definition(left), &by_definition(right))
            }
        }
    }

    #[test]
    fn the_streamed_root_is_the_root_by_definition() {
        let mut merkle = Merkle::default();
        let mut leaves = Vec::new();
        assert_eq!(merkle.root(), by_definition(&leaves));
        for n in 0..70_u8 {
            merkle.push(&[n; 3]);
            leaves.push(vec![n; 3]);
            assert_eq!(merkle.root(), by_definition(&leaves), "{} leaves", leaves.len());
        }
    }
}
