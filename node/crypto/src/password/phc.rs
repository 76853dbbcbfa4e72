//! A stored password hash: argon2id in PHC string format, with bounded parameters.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use password_hash::PasswordHash;

use super::pool::Memory;
use super::{PasswordError, SALT_LEN};
use crate::mac;

/// The bytes of a hash that is made here; stored ones may have 16 to 64.
const OUTPUT_LEN: usize = 32;
const OUTPUT_LENS: std::ops::RangeInclusive<usize> = 16..=64;

/// Upper bounds on the parameters of a stored hash: an imported row must not cause minutes of CPU per sign-in.
const MAX_MEMORY_KIB: u32 = 256 * 1024;
const MAX_PASSES: u32 = 10;
const MAX_LANES: u32 = 8;

/// The amount of work of one hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Memory in KiB (`m`).
    pub memory_kib: u32,
    /// Passes over it (`t`).
    pub passes: u32,
    /// Lanes (`p`); they run one after the other here.
    pub lanes: u32,
}

impl Cost {
    /// OWASP Password Storage Cheat Sheet, argon2id, first choice by memory and time: m = 19 MiB, t = 2, p = 1.
    pub const OWASP: Self = Self { memory_kib: 19_456, passes: 2, lanes: 1 };

    fn params(self, output_len: usize) -> Result<Params, PasswordError> {
        if self.memory_kib > MAX_MEMORY_KIB || self.passes > MAX_PASSES || self.lanes > MAX_LANES {
            return Err(PasswordError::CostTooHigh);
        }
        Params::new(self.memory_kib, self.passes, self.lanes, Some(output_len))
            .map_err(|_| PasswordError::MalformedHash)
    }
}

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Phc {
    cost: Cost,
    salt: Vec<u8>,
    output: Vec<u8>,
}

impl Phc {
    /// Hashes `password`: the one expensive call.
    pub(super) fn of(
        password: &[u8],
        salt: &[u8; SALT_LEN],
        cost: Cost,
        memory: &mut Memory,
    ) -> Result<Self, PasswordError> {
        let output = compute(password, salt, cost, OUTPUT_LEN, memory)?;
        Ok(Self { cost, salt: salt.to_vec(), output })
    }

    /// The hash of a user that does not exist: the work of a real one, and no known preimage.
    pub(super) fn nobody(cost: Cost) -> Self {
        Self { cost, salt: vec![0x5a; SALT_LEN], output: vec![0; OUTPUT_LEN] }
    }

    pub(super) fn parse(text: &str) -> Result<Self, PasswordError> {
        let malformed = || PasswordError::MalformedHash;
        let hash = PasswordHash::new(text).map_err(|_| malformed())?;
        let version = hash.version == Some(Version::V0x13.into());
        if hash.algorithm != argon2::ARGON2ID_IDENT || !version || hash.params.iter().count() != 3 {
            return Err(malformed());
        }
        let param = |name: &str| hash.params.get_decimal(name).ok_or_else(malformed);
        let cost = Cost { memory_kib: param("m")?, passes: param("t")?, lanes: param("p")? };
        let mut salt = [0; password_hash::Salt::MAX_LENGTH];
        let salt = hash.salt.ok_or_else(malformed)?.decode_b64(&mut salt).map_err(|_| malformed())?;
        let output = hash.hash.ok_or_else(malformed)?;
        if !OUTPUT_LENS.contains(&output.len()) {
            return Err(malformed());
        }
        cost.params(output.len())?;
        Ok(Self { cost, salt: salt.to_vec(), output: output.as_bytes().to_vec() })
    }

    /// True if `password` is the one that was hashed. As expensive as [`Phc::of`].
    pub(super) fn matches(&self, password: &[u8], memory: &mut Memory) -> Result<bool, PasswordError> {
        let found = compute(password, &self.salt, self.cost, self.output.len(), memory)?;
        Ok(mac::equal(&found, &self.output))
    }

    /// True if a new hash of this password would have other parameters.
    pub(super) fn is_outdated(&self, cost: Cost) -> bool {
        self.cost != cost || self.output.len() != OUTPUT_LEN
    }
}

impl fmt::Display for Phc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cost { memory_kib, passes, lanes } = self.cost;
        let (salt, output) = (STANDARD_NO_PAD.encode(&self.salt), STANDARD_NO_PAD.encode(&self.output));
        write!(f, "$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${salt}${output}")
    }
}

fn compute(
    password: &[u8],
    salt: &[u8],
    cost: Cost,
    output_len: usize,
    memory: &mut Memory,
) -> Result<Vec<u8>, PasswordError> {
    let params = cost.params(output_len)?;
    let blocks = memory.blocks(params.block_count());
    let mut output = vec![0; output_len];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(password, salt, &mut output, blocks)
        .map_err(|_| PasswordError::MalformedHash)?;
    Ok(output)
}
