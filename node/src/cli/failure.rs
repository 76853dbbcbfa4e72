//! Failures, and their exit codes for scripts. The codes are documented in `conclave --help`.

use std::{io::Write as _, process::ExitCode};

use conclave_client::Error;

use super::output::Format;

/// The reason why a command failed.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    code: Code,
    text: String,
}

/// Exit codes; 0 is success, and clap ends with 2 by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    Other = 1,
    Usage = 2,
    NotFound = 3,
    Refused = 4,
    Forbidden = 5,
    Unavailable = 6,
    Unknown = 7,
}

impl Failure {
    pub fn usage(text: impl Into<String>) -> Self {
        Self { code: Code::Usage, text: text.into() }
    }

    pub fn unauthenticated(text: impl Into<String>) -> Self {
        Self { code: Code::Forbidden, text: text.into() }
    }

    pub fn other(text: impl Into<String>) -> Self {
        Self { code: Code::Other, text: text.into() }
    }

    /// This failure with its text changed by `words`.
    #[must_use]
    pub fn reworded(self, words: impl FnOnce(&str) -> String) -> Self {
        Self { text: words(&self.text), ..self }
    }

    pub const fn exit_code(&self) -> u8 {
        self.code as u8
    }

    /// Prints it to standard error: a sentence, or an object for programs that requested JSON.
    pub fn report(&self, format: Format) -> ExitCode {
        // If standard error is closed, there is nothing left to do.
        let _ = match format {
            Format::Table => writeln!(std::io::stderr(), "conclave: {}", self.text),
            Format::Json => {
                let error = serde_json::json!({ "error": self.text, "exit_code": self.exit_code() });
                writeln!(std::io::stderr(), "{error}")
            }
        };
        ExitCode::from(self.exit_code())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::InvalidArgument(_) | Error::Refused(_) => Code::Refused,
            Error::NotFound(_) => Code::NotFound,
            Error::Unauthenticated(_) | Error::PermissionDenied(_) => Code::Forbidden,
            Error::Unavailable(_) => Code::Unavailable,
            Error::OutcomeUnknown { .. } => Code::Unknown,
            Error::Other { .. } => Code::Other,
        };
        Self { code, text: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_failure_has_its_documented_code() {
        let text = String::new;
        for (error, code) in [
            (Error::Other { code: tonic::Code::Internal, message: text() }, 1),
            (Error::NotFound(text()), 3),
            (Error::Refused(text()), 4),
            (Error::InvalidArgument(text()), 4),
            (Error::Unauthenticated(text()), 5),
            (Error::PermissionDenied(text()), 5),
            (Error::Unavailable(text()), 6),
            (Error::OutcomeUnknown { request_id: text(), last: text() }, 7),
        ] {
            assert_eq!(Failure::from(error).exit_code(), code);
        }
        assert_eq!(Failure::usage("x").exit_code(), 2);
    }
}
