//! Opaque handles: the values that a browser or client holds for a session, a code or a refresh token.
//!
//! A handle names a row (`id`), proves possession (`secret`), and contains the log index and lineage at which the row
//! was made, so that a node that lags knows which index to wait for (docs/design/consistency.md). A MAC covers all of
//! it: no attacker can make a node wait for index 2^64 or look up ids of their choice. Only the SHA-256 of the secret
//! enters replicated state.
//!
//! Layout, 90 bytes, base64url to exactly 120 characters with no spare bits, so each handle has one spelling:
//! `version (1) | kind (1) | id (16) | secret (32) | generation (8) | lineage (8) | index (8) | MAC (16)`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::keys::{ClusterKeys, Key};
use super::mac::{self, MacKey};
use super::secret::SecretBytes;

const VERSION: u8 = 1;
const MAC_LEN: usize = 16;
const BODY_LEN: usize = 74;

/// Length of a handle's text.
pub const TEXT_LEN: usize = (BODY_LEN + MAC_LEN) / 3 * 4;

/// The use of a handle. The numbers are in existing cookies and tokens: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HandleKind {
    /// The session cookie of the identity provider itself.
    Session = 1,
    /// An OAuth authorization code.
    Code = 2,
    /// An OAuth refresh token; `generation` counts its rotations.
    Refresh = 3,
    /// The cookie of a session on an application's own domain.
    AppSession = 4,
    /// An opaque access token.
    Access = 5,
    /// The cookie that binds a login in progress to one browser.
    Flow = 6,
    /// A bearer token of the admin API.
    Api = 7,
    /// A pushed authorization request.
    Pushed = 20,
    /// The code with which a device polls.
    Device = 21,
    /// The handle with which a client changes its own registration.
    Registration = 22,
    /// An app password.
    AppPassword = 60,
}

impl HandleKind {
    /// True if its row may be in a state that was restored. Logins and requests in progress never are.
    pub const fn may_outlive_a_restore(self) -> bool {
        match self {
            Self::Session
            | Self::Refresh
            | Self::AppSession
            | Self::Access
            | Self::Api
            | Self::Registration
            | Self::AppPassword => true,
            Self::Code | Self::Flow | Self::Pushed | Self::Device => false,
        }
    }
}

/// The part of a handle that only its holder knows.
pub type HandleSecret = SecretBytes<32>;

/// The history that a log index belongs to: a digest of (cluster uuid, epoch).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineageTag([u8; 8]);

impl LineageTag {
    pub fn of(cluster: &[u8; 16], epoch: u64) -> Self {
        let input = [b"conclave/lineage".as_slice(), cluster, &epoch.to_be_bytes()].concat();
        Self(mac::take(&mac::sha256(&input)))
    }

    /// The bytes of the tag, for data under a MAC of their own.
    pub const fn bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

/// The contents of a handle.
#[derive(Clone, Debug)]
pub struct HandleContents {
    pub kind: HandleKind,
    /// The id of the row: a session, a grant, a refresh family.
    pub id: [u8; 16],
    pub secret: HandleSecret,
    /// The rotation count of a refresh token; 0 for other kinds.
    pub generation: u64,
    pub lineage: LineageTag,
    /// The log index at which the row was written: a node must have applied at least this to know of it.
    pub index: u64,
}

impl HandleContents {
    /// The hash of the secret that replicated state stores.
    pub fn secret_hash(&self) -> [u8; 32] {
        mac::sha256(self.secret.expose())
    }
}

/// The reason why a text is not a valid handle. Callers do not report it to clients.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HandleError {
    #[error("not a handle")]
    Malformed,
    #[error("the handle was not made by this cluster")]
    Forged,
    #[error("the handle is of another kind")]
    WrongKind,
    #[error("the handle belongs to another lineage of the cluster (from before a restore)")]
    OtherLineage,
}

/// Makes handles under one key. Reads handles of that key and of the accepted ones.
#[derive(Clone, Debug)]
pub struct HandleKey {
    current: MacKey,
    accepted: Vec<MacKey>,
}

impl HandleKey {
    /// Creates it from [`ClusterKeys::cookie_mac`](super::keys::ClusterKeys::cookie_mac).
    pub fn new(key: &Key) -> Self {
        Self { current: MacKey::new(key), accepted: Vec::new() }
    }

    /// Makes handles with the current key of the ring, and reads those of any key of it.
    pub fn ring(keys: &ClusterKeys) -> Self {
        let accepted = keys.accepted().iter().map(|keys| MacKey::new(&keys.cookie_mac)).collect();
        Self { accepted, ..Self::new(&keys.cookie_mac) }
    }

    /// The text of a handle: 120 characters of base64url.
    pub fn issue(&self, handle: &HandleContents) -> String {
        let mut bytes = Vec::with_capacity(BODY_LEN + MAC_LEN);
        bytes.extend_from_slice(&[VERSION, handle.kind as u8]);
        bytes.extend_from_slice(&handle.id);
        bytes.extend_from_slice(handle.secret.expose());
        bytes.extend_from_slice(&handle.generation.to_be_bytes());
        bytes.extend_from_slice(&handle.lineage.0);
        bytes.extend_from_slice(&handle.index.to_be_bytes());
        let mac = tag(&self.current, &bytes);
        bytes.extend_from_slice(&mac);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Parses a presented text. The MAC is checked first: nothing inside is read before it is verified.
    pub fn parse(
        &self,
        kind: HandleKind,
        lineage: LineageTag,
        text: &str,
    ) -> Result<HandleContents, HandleError> {
        if text.len() != TEXT_LEN {
            return Err(HandleError::Malformed);
        }
        let mut bytes = [0; BODY_LEN + MAC_LEN];
        URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).map_err(|_| HandleError::Malformed)?;
        let (body, mac) = bytes.split_first_chunk::<BODY_LEN>().ok_or(HandleError::Malformed)?;
        let is_of = |key: &MacKey| mac::equal(mac, &tag(key, body));
        if !is_of(&self.current) && !self.accepted.iter().any(is_of) {
            return Err(HandleError::Forged);
        }
        let handle = read(kind, body).ok_or(HandleError::WrongKind)?;
        if handle.lineage != lineage {
            return Err(HandleError::OtherLineage);
        }
        Ok(handle)
    }
}

fn tag(key: &MacKey, body: &[u8]) -> [u8; MAC_LEN] {
    mac::take(&key.hmac_sha256(&[b"handle", body]))
}

/// The secret of generation `generation` of a refresh family. It is derived, so that a retry of a lost response gets
/// the successor again although it is not stored. The key is [`ClusterKeys::refresh`](super::keys::ClusterKeys).
pub fn refresh_secret(key: &Key, family: &[u8; 16], generation: u64) -> HandleSecret {
    HandleSecret::new(mac::hmac_sha256(key, &[b"refresh", family, &generation.to_be_bytes()]))
}

/// `None` if the body is of another kind or version. Called after the MAC was verified.
fn read(kind: HandleKind, body: &[u8; BODY_LEN]) -> Option<HandleContents> {
    let rest = body.strip_prefix(&[VERSION, kind as u8])?;
    let (id, rest) = rest.split_first_chunk()?;
    let (secret, rest) = rest.split_first_chunk()?;
    let (generation, rest) = rest.split_first_chunk()?;
    let (lineage, rest) = rest.split_first_chunk()?;
    let (index, _) = rest.split_first_chunk()?;
    Some(HandleContents {
        kind,
        id: *id,
        secret: HandleSecret::new(*secret),
        generation: u64::from_be_bytes(*generation),
        lineage: LineageTag(*lineage),
        index: u64::from_be_bytes(*index),
    })
}

#[cfg(test)]
mod tests {
    use super::{
        HandleContents, HandleError, HandleKey, HandleKind, HandleSecret, LineageTag, TEXT_LEN,
        refresh_secret,
    };
    use crate::keys::{ClusterKeys, Key};
    use crate::secret::{ClusterSecret, SecretRing};
    use conclave_base::runtime::testing::SeededEntropy;

    const CLUSTER: [u8; 16] = [9; 16];

    fn key(byte: u8) -> HandleKey {
        HandleKey::new(&Key::new([byte; 32]))
    }

    fn handle() -> HandleContents {
        HandleContents {
            kind: HandleKind::Refresh,
            id: [1; 16],
            secret: HandleSecret::new([2; 32]),
            generation: 7,
            lineage: LineageTag::of(&CLUSTER, 1),
            index: 4_000_000_000_000,
        }
    }

    #[test]
    fn a_handle_reads_back_whole() {
        let text = key(1).issue(&handle());
        assert_eq!(text.len(), TEXT_LEN);
        let read = key(1).parse(HandleKind::Refresh, handle().lineage, &text).unwrap();
        assert_eq!((read.kind, read.id, read.generation), (HandleKind::Refresh, [1; 16], 7));
        assert_eq!((read.index, read.secret_hash()), (4_000_000_000_000, handle().secret_hash()));
    }

    #[test]
    fn another_cluster_kind_or_lineage_is_told_apart() {
        let text = key(1).issue(&handle());
        let refused = |k: HandleKey, kind, lineage| k.parse(kind, lineage, &text).unwrap_err();
        assert_eq!(refused(key(2), HandleKind::Refresh, handle().lineage), HandleError::Forged);
        assert_eq!(refused(key(1), HandleKind::Session, handle().lineage), HandleError::WrongKind);
        let restored = LineageTag::of(&CLUSTER, 2);
        assert_eq!(refused(key(1), HandleKind::Refresh, restored), HandleError::OtherLineage);
    }

    #[test]
    fn a_handle_of_any_secret_of_the_ring_is_read_by_every_node_of_the_day() {
        let secret = |n| ClusterSecret::generate(SeededEntropy::new(n).as_ref());
        let key = |current, accepted: &[u64]| {
            let accepted = accepted.iter().map(|n| secret(*n)).collect();
            HandleKey::ring(&ClusterKeys::ring(&SecretRing { current: secret(current), accepted }))
        };
        let (old, first, second, new) = (key(1, &[]), key(1, &[2]), key(2, &[1]), key(2, &[]));
        let reads = |reader: &HandleKey, maker: &HandleKey| {
            reader.parse(HandleKind::Refresh, handle().lineage, &maker.issue(&handle())).is_ok()
        };
        for (one, other) in [(&old, &first), (&first, &second), (&second, &new)] {
            assert!(reads(one, other) && reads(other, one), "neighbours in time work together");
        }
        assert!(!reads(&new, &old) && !reads(&old, &new));
    }

    #[test]
    fn no_character_can_be_changed_added_or_left_out() {
        let text = key(1).issue(&handle());
        let parse = |t: &str| key(1).parse(HandleKind::Refresh, handle().lineage, t);
        for at in 0..text.len() {
            let other = if &text[at..=at] == "A" { "B" } else { "A" };
            let altered = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            assert_eq!(parse(&altered).unwrap_err(), HandleError::Forged, "character {at}");
            assert_eq!(parse(&text[..at]).unwrap_err(), HandleError::Malformed);
        }
        assert_eq!(parse(&format!("{text}A")).unwrap_err(), HandleError::Malformed);
        assert_eq!(parse(&"é".repeat(TEXT_LEN / 2)).unwrap_err(), HandleError::Malformed);
    }

    #[test]
    fn a_refresh_successor_is_the_same_each_time_and_for_no_one_else() {
        let key = Key::new([5; 32]);
        let secret = |family: u8, generation| *refresh_secret(&key, &[family; 16], generation).expose();
        assert_eq!(secret(1, 2), secret(1, 2));
        assert_ne!(secret(1, 2), secret(1, 3));
        assert_ne!(secret(1, 2), secret(2, 2));
    }

    #[test]
    fn debug_prints_no_secret() {
        assert!(!format!("{:?}", handle()).contains("2, 2"));
    }
}
