//! What a caller of the API has seen, in its own hands: a log index under a MAC. Nobody outside can make a node wait
//! for an index that never was, and one of another cluster, or of this one before a restore, is told from ours
//! (design.md §7).
//!
//! Its text is `INDEX.TAG`: the number is there to be compared by clients, which keep the highest they were given.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::Auth;
use conclave_crypto::{keys::ClusterKeys, mac};

/// Bytes of the tag: enough that nobody guesses one.
const TAG_BYTES: usize = 12;

/// Why a text is no index of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unseen {
    /// It is not of the form.
    Malformed,
    /// It was not made here, or before a restore.
    Foreign,
}

impl Auth {
    /// The text for this index of this cluster's present life.
    pub fn seen(&self, index: u64) -> String {
        format!("{index}.{}", URL_SAFE_NO_PAD.encode(self.tag(self.cluster_keys(), index)))
    }

    /// The index in a text.
    ///
    /// # Errors
    /// [`Unseen`].
    pub fn parse_seen(&self, text: &str) -> Result<u64, Unseen> {
        let (number, tag) = text.split_once('.').ok_or(Unseen::Malformed)?;
        let index = number.parse().map_err(|_| Unseen::Malformed)?;
        let tag = URL_SAFE_NO_PAD.decode(tag).map_err(|_| Unseen::Malformed)?;
        if self.cluster_keys().any(|keys| mac::equal(&tag, &self.tag(keys, index))) {
            Ok(index)
        } else {
            Err(Unseen::Foreign)
        }
    }

    fn tag(&self, keys: &ClusterKeys, index: u64) -> [u8; TAG_BYTES] {
        let lineage = self.lineage_tag();
        let parts = [b"conclave/seen".as_slice(), lineage.bytes(), &index.to_be_bytes()];
        mac::take(&mac::hmac_sha256(&keys.cookie_mac, &parts))
    }
}
