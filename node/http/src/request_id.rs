//! An id for each request, in its log lines, its error pages and its response.

use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderName, HeaderValue};

use conclave_base::runtime::Entropy;
use conclave_crypto::{hex, mac::take};

/// The response header with the id.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Random bytes in an id.
const BYTES: usize = 16;
/// Random bytes requested at once: the system's generator takes as long for one id as for this many.
const DRAWN: usize = 64 * BYTES;

/// 32 hex digits, made here for each request; an id sent by the client is ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(Option<[u8; 2 * BYTES]>);

impl RequestId {
    fn of(bytes: [u8; BYTES]) -> Self {
        Self(Some(hex::digits(&bytes)))
    }

    pub fn as_str(&self) -> &str {
        self.0.as_ref().and_then(|digits| std::str::from_utf8(digits).ok()).unwrap_or_default()
    }

    pub(super) fn header(&self) -> Option<HeaderValue> {
        HeaderValue::from_bytes(self.0.as_ref()?).ok()
    }
}

/// Makes request ids. They are not secret, so random bytes for later ids may be kept here.
pub(super) struct Names {
    entropy: Arc<dyn Entropy>,
    drawn: Mutex<Drawn>,
}

struct Drawn {
    bytes: [u8; DRAWN],
    used: usize,
}

impl Names {
    pub(super) fn new(entropy: Arc<dyn Entropy>) -> Self {
        Self { entropy, drawn: Mutex::new(Drawn { bytes: [0; DRAWN], used: DRAWN }) }
    }

    pub(super) fn next(&self) -> RequestId {
        // A poisoned lock leaves at worst bytes that were not used.
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        let at = drawn.used;
        if let Some(bytes) = drawn.bytes.get(at..).and_then(<[u8]>::first_chunk) {
            let id = RequestId::of(*bytes);
            drawn.used = at + BYTES;
            return id;
        }
        self.entropy.fill(&mut drawn.bytes);
        drawn.used = BYTES;
        RequestId::of(take(&drawn.bytes))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Outside the [`Edge`](super::Edge) there is no id, and the extractor returns an empty one.
impl<S: Sync> FromRequestParts<S> for RequestId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or(Self(None)))
    }
}

#[cfg(test)]
mod tests {
    use super::Names;
    use conclave_base::runtime::testing::SeededEntropy;

    #[test]
    fn no_two_requests_have_one_name() {
        let names = Names::new(SeededEntropy::new(1));
        let drawn: std::collections::BTreeSet<String> =
            (0..1_000).map(|_| names.next().to_string()).collect();
        assert_eq!(drawn.len(), 1_000);
        assert!(drawn.iter().all(|name| name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit())));
    }
}
