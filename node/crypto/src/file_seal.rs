//! Sealing and opening of frames: AES-256-GCM under a key used for one file only. Snapshots consist of such frames, and
//! so do the segments of the archive.
//!
//! The nonce is the frame's kind and number. It never repeats under one key, because the key is derived from a fresh
//! random salt and from the header for every file.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use zeroize::Zeroizing;

use crate::{
    keys::{ClusterKeys, KeyId},
    mac::sha256_of,
};

pub const KEY_ID_BYTES: usize = 16;
pub const TAG_BYTES: usize = 16;

pub const HEADER: u8 = 0;
pub const CHUNK: u8 = 1;
pub const TRAILER: u8 = 2;

const KEY_ID_LABEL: &[u8] = b"conclave snapshot v1 key id";
/// The purpose of a snapshot's file key. Another format has another label.
pub const SNAPSHOT_LABEL: &[u8] = b"conclave snapshot v1 file key";

/// A cryptographic operation that failed; it names the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cryptography library refused to {0}")]
pub struct FileSealError(pub &'static str);

/// The cluster's key for data that leave memory, and the keys whose files are also opened. Never printed, and wiped
/// when dropped.
pub struct SealingKey {
    key: Zeroizing<[u8; 32]>,
    accepted: Vec<SealingKey>,
    secret_id: KeyId,
}

impl SealingKey {
    pub fn new(key: [u8; 32]) -> Self {
        Self { key: Zeroizing::new(key), accepted: Vec::new(), secret_id: KeyId::default() }
    }

    /// Seals under the current key of the ring, and opens with any key of it.
    pub fn ring(keys: &ClusterKeys) -> Self {
        let of =
            |keys: &ClusterKeys| Self { secret_id: keys.secret_check, ..Self::new(*keys.sealing.expose()) };
        Self { accepted: keys.accepted().iter().map(of).collect(), ..of(keys) }
    }

    /// The name of the secret that this key is derived from; zeros for a key made from bytes alone.
    pub const fn secret_id(&self) -> KeyId {
        self.secret_id
    }

    /// The names of the secrets of the ring, the current one first.
    pub fn secret_ids(&self) -> impl Iterator<Item = &KeyId> {
        std::iter::once(self).chain(&self.accepted).map(|key| &key.secret_id)
    }

    /// The key with this name, the current one first.
    pub fn named(&self, id: &[u8; KEY_ID_BYTES]) -> Result<Option<&Self>, FileSealError> {
        for key in std::iter::once(self).chain(&self.accepted) {
            if key.id()? == *id {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    /// Names the key in a header without revealing anything of it.
    pub fn id(&self) -> Result<[u8; KEY_ID_BYTES], FileSealError> {
        let mut id = [0; KEY_ID_BYTES];
        derive(&*self.key, &[], &[KEY_ID_LABEL], &mut id)?;
        Ok(id)
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey(..)")
    }
}

/// The authenticated data beside a frame's bytes.
#[derive(Clone, Copy)]
pub struct Frame {
    pub kind: u8,
    pub table: u32,
    pub plain_len: u32,
    pub sequence: u64,
}

/// Seals and opens the frames of one file.
pub struct FileKey {
    key: LessSafeKey,
    header_hash: [u8; 32],
}

impl FileKey {
    /// The key of the file with this format (`label`) and salt, whose header is `bytes` up to the tag.
    pub fn derive(key: &SealingKey, label: &[u8], salt: &[u8], bytes: &[u8]) -> Result<Self, FileSealError> {
        let header_hash = sha256_of(&[bytes]);
        let mut file_key = Zeroizing::new([0; 32]);
        derive(&*key.key, salt, &[label, &header_hash], &mut *file_key)?;
        let key = UnboundKey::new(&AES_256_GCM, &*file_key).map_err(|_| FileSealError("make a key"))?;
        Ok(Self { key: LessSafeKey::new(key), header_hash })
    }

    /// Seals in place and appends the tag.
    pub fn seal(&self, frame: Frame, bytes: &mut Vec<u8>) -> Result<(), FileSealError> {
        self.key
            .seal_in_place_append_tag(nonce(frame), Aad::from(self.aad(frame)), bytes)
            .map_err(|_| FileSealError("seal a frame"))
    }

    /// Opens in place; `None` if anything about the frame differs from what was sealed.
    pub fn open<'a>(&self, frame: Frame, bytes: &'a mut [u8]) -> Option<&'a [u8]> {
        self.key.open_in_place(nonce(frame), Aad::from(self.aad(frame)), bytes).ok().map(|plain| &*plain)
    }

    fn aad(&self, frame: Frame) -> Vec<u8> {
        let mut aad = self.header_hash.to_vec();
        aad.push(frame.kind);
        aad.extend_from_slice(&frame.table.to_be_bytes());
        aad.extend_from_slice(&frame.plain_len.to_be_bytes());
        aad.extend_from_slice(&frame.sequence.to_be_bytes());
        aad
    }
}

fn nonce(frame: Frame) -> Nonce {
    let mut nonce = [0; 12];
    let (kind, sequence) = nonce.split_at_mut(4);
    kind.copy_from_slice(&u32::from(frame.kind).to_be_bytes());
    sequence.copy_from_slice(&frame.sequence.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// HKDF-SHA-256 (RFC 5869).
fn derive(key: &[u8], salt: &[u8], info: &[&[u8]], out: &mut [u8]) -> Result<(), FileSealError> {
    struct Len(usize);
    impl hkdf::KeyType for Len {
        fn len(&self) -> usize {
            self.0
        }
    }
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(key);
    prk.expand(info, Len(out.len())).and_then(|okm| okm.fill(out)).map_err(|_| FileSealError("derive a key"))
}
