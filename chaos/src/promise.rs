//! The promises by name, so that a broken promise can be distinguished from other errors.

use std::fmt;

/// A promise that a history may break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// No check that starts after the acknowledgement of a revocation is accepted, on any node.
    RevokedAtOnce,
    /// An acknowledged result exists, and stays.
    AcknowledgedStays,
    /// Codes and refresh tokens are used once.
    OnceOnly,
    /// A signed-in user is never redirected to sign in.
    NoLoginLoop,
    /// Nodes at the same index hold the same state.
    EqualDigests,
    /// Everything works soon after the faults have ended.
    WorksAgain,
    /// No process panics, hangs, or ends without a request.
    RunsOn,
}

impl Promise {
    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RevokedAtOnce => "revoked-at-once",
            Self::AcknowledgedStays => "acknowledged-stays",
            Self::OnceOnly => "once-only",
            Self::NoLoginLoop => "no-login-loop",
            Self::EqualDigests => "equal-digests",
            Self::WorksAgain => "works-again",
            Self::RunsOn => "runs-on",
        }
    }

    /// This promise, broken in this way.
    pub fn broken(self, how: impl Into<String>) -> Broken {
        Broken { promise: self, how: how.into() }
    }

    /// True if the line that a [`Broken`] was printed as is about this promise.
    #[must_use]
    pub fn is_of(self, line: &str) -> bool {
        line.strip_prefix(self.name()).is_some_and(|rest| rest.starts_with(": "))
    }
}

/// A broken promise. Printed as its name and a description.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Broken {
    /// The promise.
    pub promise: Promise,
    /// The description.
    pub how: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise.name(), self.how)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_line_tells_its_promise_and_no_other() {
        let line = Promise::OnceOnly.broken("a code").to_string();
        assert!(Promise::OnceOnly.is_of(&line) && !Promise::RunsOn.is_of(&line), "{line}");
        assert!(!Promise::OnceOnly.is_of("runs-on: a panic about once-only: things"));
    }
}
