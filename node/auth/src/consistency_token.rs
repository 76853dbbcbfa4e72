//! The consistency token: the log index that an API caller has seen, under a MAC, kept by the caller. An outsider
//! cannot make a node wait for an index that does not exist. A token of another cluster, or of this one before a
//! restore, is recognized as foreign (docs/design/consistency.md).
//!
//! Its text is `INDEX.TAG`. Clients compare the number and keep the highest token that they received.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::Auth;
use conclave_crypto::{keys::ClusterKeys, mac};

/// Bytes of the tag: enough that it cannot be guessed.
const TAG_BYTES: usize = 12;

/// The reason why a text is not a consistency token of this lineage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidToken {
    /// The format is wrong.
    Malformed,
    /// It was made by another cluster, or before a restore.
    Foreign,
}

impl Auth {
    /// The token for this index in the current lineage.
    pub fn consistency_token(&self, index: u64) -> String {
        format!("{index}.{}", URL_SAFE_NO_PAD.encode(self.tag(self.cluster_keys(), index)))
    }

    /// The index in a token.
    ///
    /// # Errors
    /// [`InvalidToken`].
    pub fn parse_consistency_token(&self, text: &str) -> Result<u64, InvalidToken> {
        let (number, tag) = text.split_once('.').ok_or(InvalidToken::Malformed)?;
        let index = number.parse().map_err(|_| InvalidToken::Malformed)?;
        let tag = URL_SAFE_NO_PAD.decode(tag).map_err(|_| InvalidToken::Malformed)?;
        if self.cluster_keys().any(|keys| mac::equal(&tag, &self.tag(keys, index))) {
            Ok(index)
        } else {
            Err(InvalidToken::Foreign)
        }
    }

    fn tag(&self, keys: &ClusterKeys, index: u64) -> [u8; TAG_BYTES] {
        let lineage = self.lineage_tag();
        let parts = [b"conclave/seen".as_slice(), lineage.bytes(), &index.to_be_bytes()];
        mac::take(&mac::hmac_sha256(&keys.cookie_mac, &parts))
    }
}
