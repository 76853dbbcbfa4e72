//! The cluster secret: 32 bytes that make a set of processes one cluster (docs/design/consensus.md, "Trust between
//! nodes").
//!
//! A holder of the secret can join the cluster and read its snapshots. It is never used directly: see
//! [`ClusterKeys`](super::keys::ClusterKeys).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use conclave_base::runtime::Entropy;

/// Length of the cluster secret and of every key derived from it.
pub const SECRET_LEN: usize = 32;

const HEX_LEN: usize = SECRET_LEN * 2;

/// `N` secret bytes that are never printed, and wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SecretBytes<const N: usize>([u8; N]);

impl<const N: usize> SecretBytes<N> {
    pub fn new(bytes: [u8; N]) -> Self {
        Self(bytes)
    }

    /// The bytes themselves; the name makes each use easy to find in review.
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> fmt::Debug for SecretBytes<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// The secret that all nodes of a cluster share.
#[derive(Clone, Debug)]
pub struct ClusterSecret(SecretBytes<SECRET_LEN>);

/// The secret for new data, and those that are also accepted while a cluster changes from one secret to the next.
#[derive(Clone, Debug)]
pub struct SecretRing {
    /// All new data are made with this secret.
    pub current: ClusterSecret,
    /// Data made with these secrets are still accepted, and so are nodes that still use them.
    pub accepted: Vec<ClusterSecret>,
}

impl From<ClusterSecret> for SecretRing {
    fn from(current: ClusterSecret) -> Self {
        Self { current, accepted: Vec::new() }
    }
}

/// The reason why a text is not a cluster secret. It never repeats the text.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SecretError {
    #[error("the cluster secret is empty; make one with `conclave secret new`")]
    Empty,
    #[error(
        "the cluster secret has {found} characters but must be 64 of hex or 43 of base64url (32 bytes); make one with `conclave secret new`"
    )]
    WrongLength { found: usize },
    #[error(
        "the cluster secret holds a character that is neither hex nor base64url; make one with `conclave secret new`"
    )]
    WrongCharacter,
    #[error(
        "the cluster secret is one byte repeated, which anyone can guess; make one with `conclave secret new`"
    )]
    Guessable,
}

impl ClusterSecret {
    /// A fresh secret.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self(SecretBytes::new(entropy.bytes()))
    }

    /// Reads the text of a secret file: 64 hex digits or 43 characters of base64url (one `=` of padding is allowed).
    /// White space around them is ignored.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let text = text.trim();
        let digits = text.strip_suffix('=').unwrap_or(text);
        let bytes = match digits.len() {
            0 => return Err(SecretError::Empty),
            HEX_LEN => hex_decode(digits)?,
            _ => base64_decode(digits)?,
        };
        let bytes = <[u8; SECRET_LEN]>::try_from(bytes.as_slice())
            .map_err(|_| SecretError::WrongLength { found: text.len() })?;
        if bytes.iter().all(|byte| Some(byte) == bytes.first()) {
            return Err(SecretError::Guessable);
        }
        Ok(Self(SecretBytes::new(bytes)))
    }

    /// The text that [`parse`](Self::parse) reads: base64url without padding, no line end.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(URL_SAFE_NO_PAD.encode(self.0.expose()))
    }

    pub(super) fn expose(&self) -> &[u8; SECRET_LEN] {
        self.0.expose()
    }
}

fn hex_decode(digits: &str) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let value = |digit: char| digit.to_digit(16).ok_or(SecretError::WrongCharacter);
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_LEN));
    let mut rest = digits.chars();
    while let (Some(high), Some(low)) = (rest.next(), rest.next()) {
        let byte = value(high)? << 4 | value(low)?;
        bytes.push(u8::try_from(byte).map_err(|_| SecretError::WrongCharacter)?);
    }
    Ok(bytes)
}

fn base64_decode(digits: &str) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let alphabet = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !digits.chars().all(alphabet) {
        return Err(SecretError::WrongCharacter);
    }
    URL_SAFE_NO_PAD
        .decode(digits)
        .map(Zeroizing::new)
        .map_err(|_| SecretError::WrongLength { found: digits.len() })
}

#[cfg(test)]
mod tests {
    use super::{ClusterSecret, SecretError};
    use crate::hex;
    use conclave_base::runtime::testing::SeededEntropy;

    #[test]
    fn a_generated_secret_reads_back_from_its_text_and_from_hex() {
        let secret = ClusterSecret::generate(SeededEntropy::new(1).as_ref());
        let text = format!("  {}\n", *secret.to_text());
        assert_eq!(ClusterSecret::parse(&text).unwrap().expose(), secret.expose());
        let hex = hex::encode(secret.expose()).to_uppercase();
        assert_eq!(ClusterSecret::parse(&hex).unwrap().expose(), secret.expose());
    }

    #[test]
    fn a_secret_that_is_none_is_named_by_its_fault() {
        let fault = |text: &str| ClusterSecret::parse(text).unwrap_err();
        assert_eq!(fault(" \n"), SecretError::Empty);
        assert_eq!(fault("c2hvcnQ"), SecretError::WrongLength { found: 7 });
        assert_eq!(fault(&"zz".repeat(32)), SecretError::WrongCharacter);
        assert_eq!(fault(&"é+".repeat(20)), SecretError::WrongCharacter);
        assert_eq!(fault(&"00".repeat(32)), SecretError::Guessable);
    }

    #[test]
    fn debug_prints_no_secret() {
        let secret = ClusterSecret::generate(SeededEntropy::new(1).as_ref());
        assert_eq!(format!("{secret:?}"), "ClusterSecret((secret))");
    }
}
