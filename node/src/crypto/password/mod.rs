//! Password hashing: argon2id in threads of its own, behind a bounded queue.
//!
//! One hash costs 19 MiB and tens of milliseconds by design. So it never runs on a runtime thread (consensus
//! shares the machine), at most as many run as there are threads, and at most [`MAX_WAITING`] wait: beyond that
//! the caller learns [`PasswordError::Busy`] at once. A name nobody has costs the same time as one somebody has:
//! [`PasswordPool::verify`] takes `None` and works as hard.

mod phc;
mod pool;

use std::fmt;
use std::num::NonZeroUsize;

use zeroize::Zeroizing;

use self::phc::Phc;
use self::pool::{Memory, Pool};

pub use self::phc::Cost;
pub use self::pool::MAX_WAITING;

/// Longest password in bytes. Longer ones are refused before any hashing: argon2 reads its whole input.
pub const MAX_PASSWORD_LEN: usize = 1024;

/// Least characters of a password that is set (NIST SP 800-63B §5.1.1.2).
pub const MIN_PASSWORD_CHARS: usize = 8;

/// Salt length in bytes (RFC 9106 §3.1 recommends 16).
pub const SALT_LEN: usize = 16;

/// Why there is no hash or no verdict. None of these says anything about the password.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PasswordError {
    #[error("a password has at most {MAX_PASSWORD_LEN} bytes")]
    TooLong,
    #[error("too many sign-ins are waiting on this node; try again shortly")]
    Busy,
    #[error("password hashing has stopped on this node")]
    Stopped,
    #[error("the stored password hash is not an argon2id PHC string")]
    MalformedHash,
    #[error("the stored password hash asks for more work than is allowed (m <= 262144 KiB, t <= 10, p <= 8)")]
    CostTooHigh,
}

/// A password someone typed. Any bytes, NUL included; prints as nothing and is wiped when dropped.
pub struct Password(Zeroizing<Vec<u8>>);

impl Password {
    /// Refuses what is longer than [`MAX_PASSWORD_LEN`].
    pub fn new(text: impl Into<Vec<u8>>) -> Result<Self, PasswordError> {
        let bytes = Zeroizing::new(text.into());
        if bytes.len() > MAX_PASSWORD_LEN {
            return Err(PasswordError::TooLong);
        }
        Ok(Self(bytes))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(password)")
    }
}

/// What a verification found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The right password. `needs_rehash` when it was hashed with parameters other than today's.
    Match { needs_rehash: bool },
    /// The wrong password, or no such user.
    Mismatch,
}

/// The threads that hash, and the queue before them. Clones share both.
#[derive(Clone, Debug)]
pub struct PasswordPool {
    pool: Pool,
    cost: Cost,
}

impl PasswordPool {
    /// Starts `threads` threads. The last clone to be dropped stops them.
    pub fn start(threads: NonZeroUsize, cost: Cost) -> std::io::Result<Self> {
        Ok(Self { pool: Pool::start(threads)?, cost })
    }

    /// As many threads as the machine has cores: more would only share them.
    pub fn default_threads() -> NonZeroUsize {
        std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
    }

    /// The PHC string of a new password.
    pub async fn hash(&self, password: Password, salt: [u8; SALT_LEN]) -> Result<String, PasswordError> {
        let cost = self.cost;
        let work = move |memory: &mut Memory| Phc::of(&password.0, &salt, cost, memory);
        let phc = self.pool.run(work).await??;
        Ok(phc.to_string())
    }

    /// Compares a password with a stored PHC string. `None` stands for a user that does not exist: the same work
    /// is done and the verdict is [`Verdict::Mismatch`].
    pub async fn verify(&self, password: Password, phc: Option<&str>) -> Result<Verdict, PasswordError> {
        let stored = phc.map(Phc::parse).transpose()?;
        let (known, stored) = (stored.is_some(), stored.unwrap_or_else(|| Phc::nobody(self.cost)));
        let needs_rehash = stored.is_outdated(self.cost);
        let work = move |memory: &mut Memory| stored.matches(&password.0, memory);
        let matches = self.pool.run(work).await??;
        Ok(if matches && known { Verdict::Match { needs_rehash } } else { Verdict::Mismatch })
    }
}

#[cfg(test)]
mod tests;
