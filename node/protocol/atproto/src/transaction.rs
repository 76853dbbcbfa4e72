//! A sign-in through a user's server in progress. It is kept in a cookie, sealed under a key of the cluster and bound
//! to this browser; `state` is random and carries no information. The transaction holds the expected result: the
//! server, the DID, the key. Any node can continue it. Nothing is written until the end, where the rules spend the
//! login ticket inside.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use conclave_proto::command::v1::{SpentProof, spent_proof::Kind};
use conclave_state::ids::TicketId;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use conclave_auth::{
    Auth, AuthError,
    ticket::{Ticket, TicketError},
};
use conclave_base::propagation;
use conclave_base::runtime::Entropy;
use conclave_crypto::{jwk::Alg, jwt::JwtSigningKey, mac};

/// The purpose that the seal is bound to; a value sealed for another purpose does not open.
const PURPOSE: &str = "atproto-transaction/1";
/// Maximum length of the cookie: browsers do not store longer ones.
const MAX_COOKIE_BYTES: usize = 3_800;

/// A sign-in in progress.
#[derive(Serialize, Deserialize)]
pub(crate) struct Transaction {
    pub ticket: Ticket,
    /// The upstream row that sign-ins of this kind belong to.
    pub upstream: String,
    /// Random; returned by the browser.
    pub state: [u8; 16],
    /// The issuer that must respond, compared exactly.
    pub issuer: String,
    /// The DID that must sign in; `None` if the user named a server.
    pub did: Option<String>,
    /// The bytes from which the PKCE verifier is made.
    pub verifier: [u8; 32],
    /// The DPoP key of this sign-in alone, PKCS#8.
    key: Vec<u8>,
    /// The key with which this cluster authenticated; the code exchange must use it too.
    pub kid: Option<String>,
    /// SHA-256 of the token with which the first user is admitted.
    pub first_token_hash: Vec<u8>,
    /// The span in which it began: one sign-in is one trace, wherever it ends. Only ids; empty if no traces are
    /// collected.
    #[serde(default)]
    pub trace: String,
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl Transaction {
    /// Begins a sign-in.
    ///
    /// # Errors
    /// Fails if no key can be made.
    pub(crate) fn begin(ticket: Ticket, upstream: &str, entropy: &dyn Entropy) -> Result<Self, AuthError> {
        let key = JwtSigningKey::generate_pkcs8(Alg::Es256, entropy);
        let key = key.map_err(|error| AuthError::Internal(format!("no DPoP key: {error}")))?;
        Ok(Self {
            ticket,
            upstream: upstream.to_owned(),
            state: entropy.bytes(),
            issuer: String::new(),
            did: None,
            verifier: entropy.bytes(),
            key: key.to_vec(),
            kid: None,
            first_token_hash: Vec::new(),
            trace: propagation::sealed(),
        })
    }

    /// The `state` parameter as text.
    pub(crate) fn state(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.state)
    }

    /// The PKCE verifier for the token endpoint (RFC 7636).
    pub(crate) fn verifier(&self) -> Zeroizing<String> {
        Zeroizing::new(URL_SAFE_NO_PAD.encode(self.verifier))
    }

    pub(crate) fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(mac::sha256(self.verifier().as_bytes()))
    }

    /// The DPoP key.
    ///
    /// # Errors
    /// Fails if the bytes are not a key, which only a defect can cause.
    pub(crate) fn dpop_key(&self) -> Result<JwtSigningKey, AuthError> {
        let key = JwtSigningKey::from_pkcs8(Alg::Es256, &self.key);
        key.map_err(|error| AuthError::Internal(format!("the DPoP key: {error}")))
    }

    /// The id under which the rules record it as spent.
    pub(crate) fn proof(&self) -> TicketId {
        let id = mac::sha256(&[b"atproto-state".as_slice(), &self.state].concat());
        TicketId::new(*id.first_chunk::<16>().unwrap_or(&[0; 16]))
    }

    /// The proof that the rules must record as spent.
    pub(crate) fn spent(&self) -> SpentProof {
        SpentProof {
            kind: Kind::AtprotoState.into(),
            proof_id: self.proof().to_vec(),
            expires_at_ms: self.ticket.expires_at_ms,
            client_id: String::new(),
        }
    }

    /// The cookie's own name: one browser may have several sign-ins in progress.
    pub(crate) fn cookie(state: &str) -> String {
        let short: String = state.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
        format!("atproto_{short}")
    }

    /// Seals it as text for the cookie.
    ///
    /// # Errors
    /// Fails if it is longer than browsers store.
    pub(crate) fn seal(&self, auth: &Auth) -> Result<String, AuthError> {
        let text = auth.seal_for_browser(PURPOSE, self)?;
        if text.len() > MAX_COOKIE_BYTES { Err(AuthError::TooLong) } else { Ok(text) }
    }

    /// Opens the cookie of this browser.
    ///
    /// # Errors
    /// [`TicketError`]
    pub(crate) fn open(auth: &Auth, text: &str, browser: &str) -> Result<Self, TicketError> {
        let transaction: Self = auth.open_sealed(PURPOSE, text)?;
        if transaction.ticket.browser.is_none() {
            return Err(TicketError::NotOurs);
        }
        auth.check_ticket(&transaction.ticket, Some(browser))?;
        Ok(transaction)
    }
}
