//! The input of a grant type.

use conclave_auth::write_key::WriteKey;

use crate::{authorization::request::Parameters, head::RequestHead, token::dpop::DpopProof};

/// The input of a grant type.
pub(crate) struct TokenRequest<'a> {
    pub headers: &'a RequestHead,
    pub form: Parameters,
    /// The key of the write. With an `Idempotency-Key` it depends on the key and on everything that the client
    /// sent.
    pub write_key: WriteKey,
    /// The key that the tokens are bound to, if the client proved one.
    pub proof: Option<DpopProof>,
}
