//! Password hashing: argon2id in threads of its own, behind a bounded queue.
//!
//! One hash costs 19 MiB and tens of milliseconds by design. So it never runs on a runtime thread (consensus shares the
//! machine). At most as many hashes run as there are threads, and at most [`MAX_WAITING`] wait: beyond that the caller
//! gets [`PasswordError::Busy`] at once. An unknown username takes as long as a known one: [`PasswordPool::verify`]
//! accepts `None` and does equal work.

mod phc;
mod pool;

use std::fmt;
use std::num::NonZeroUsize;

use zeroize::Zeroizing;

use conclave_base::text;

use self::phc::Phc;
use self::pool::{Memory, Pool};

pub use self::phc::Cost;
pub use self::pool::MAX_WAITING;

/// The longest password in bytes. Longer ones are refused before any hashing: argon2 reads its whole input.
pub const MAX_PASSWORD_LEN: usize = 1024;

/// The least number of characters of a new password (NIST SP 800-63B §5.1.1.2).
pub const MIN_PASSWORD_CHARS: usize = 8;

/// Salt length in bytes (RFC 9106 §3.1 recommends 16).
pub const SALT_LEN: usize = 16;

/// The reason why there is no hash or no verdict. None of these reveals anything about the password.
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

/// A password that a user typed. It may contain any characters, including NUL. It is never printed, and wiped when
/// dropped.
///
/// It is kept in the form of [`text::opaque`], so that keyboards that compose characters differently produce equal
/// passwords. If that changes the typed bytes, these are kept as well: a hash from before passwords were normalised is
/// made of them.
pub struct PlaintextPassword {
    normal: Zeroizing<String>,
    typed: Option<Zeroizing<String>>,
}

impl PlaintextPassword {
    /// Normalises the typed text.
    ///
    /// # Errors
    /// `TooLong` if it is longer than [`MAX_PASSWORD_LEN`], as typed or normalised.
    pub fn new(text: impl Into<String>) -> Result<Self, PasswordError> {
        let typed = Zeroizing::new(text.into());
        if typed.len() > MAX_PASSWORD_LEN {
            return Err(PasswordError::TooLong);
        }
        let normal = Zeroizing::new(text::opaque(&typed));
        if normal.len() > MAX_PASSWORD_LEN {
            return Err(PasswordError::TooLong);
        }
        let typed = (*typed != *normal).then_some(typed);
        Ok(Self { normal, typed })
    }

    /// Returns the number of characters (Unicode code points) after normalisation.
    pub fn char_count(&self) -> usize {
        self.normal.chars().count()
    }

    /// Compares with a stored hash: the normal form first, then the bytes as typed if they differ. At most two hashes.
    fn matches(&self, stored: &Phc, memory: &mut Memory) -> Result<Option<Form>, PasswordError> {
        if stored.matches(self.normal.as_bytes(), memory)? {
            return Ok(Some(Form::Normal));
        }
        match &self.typed {
            Some(typed) if stored.matches(typed.as_bytes(), memory)? => Ok(Some(Form::Typed)),
            _ => Ok(None),
        }
    }
}

/// The form of a password that a stored hash was made from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Normal,
    Typed,
}

impl fmt::Debug for PlaintextPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(password)")
    }
}

/// The result of a verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordCheck {
    /// The right password. `needs_rehash` is true if it was hashed with parameters other than the current ones, or
    /// before it was normalised.
    Match { needs_rehash: bool },
    /// The wrong password, or an unknown user.
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
    pub async fn hash(
        &self,
        password: PlaintextPassword,
        salt: [u8; SALT_LEN],
    ) -> Result<String, PasswordError> {
        let cost = self.cost;
        let work = move |memory: &mut Memory| Phc::of(password.normal.as_bytes(), &salt, cost, memory);
        let phc = self.pool.run(work).await??;
        Ok(phc.to_string())
    }

    /// Compares a password with a stored PHC string. `None` stands for a user that does not exist: equal work is done
    /// and the verdict is [`PasswordCheck::Mismatch`].
    pub async fn verify(
        &self,
        password: PlaintextPassword,
        phc: Option<&str>,
    ) -> Result<PasswordCheck, PasswordError> {
        let stored = phc.map(Phc::parse).transpose()?;
        let (known, stored) = (stored.is_some(), stored.unwrap_or_else(|| Phc::nobody(self.cost)));
        let needs_rehash = stored.is_outdated(self.cost);
        let work = move |memory: &mut Memory| password.matches(&stored, memory);
        let form = self.pool.run(work).await??.filter(|_| known);
        Ok(form.map_or(PasswordCheck::Mismatch, |form| PasswordCheck::Match {
            needs_rehash: needs_rehash || form == Form::Typed,
        }))
    }
}

#[cfg(test)]
mod tests;
