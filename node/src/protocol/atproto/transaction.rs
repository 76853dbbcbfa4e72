//! A sign-in on its way to a person's server and back. It travels in a cookie, sealed under a key of the cluster and of
//! this browser alone; `state` is chance and says nothing. What it must end as is in it: the server, the person, the
//! key. Any node can take it up, and nothing is written until the end, where the login ticket inside is spent by the
//! rules.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use conclave_proto::command::v1::{SpentProof, spent_proof::Kind};
use conclave_state::ids::TicketId;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::auth::{
    Auth, AuthError,
    ticket::{Ticket, TicketError},
};
use conclave_base::propagation;
use conclave_base::runtime::Entropy;
use conclave_crypto::{jwk::Alg, jwt::SigningKey, mac};

/// What the seal is for; a transaction opens as nothing else.
const PURPOSE: &str = "atproto-transaction/1";
/// Longest cookie: browsers keep no longer one.
const MAX_COOKIE_BYTES: usize = 3_800;

/// On its way.
#[derive(Serialize, Deserialize)]
pub struct Transaction {
    pub ticket: Ticket,
    /// The row of the state that sign-ins of this kind belong to.
    pub upstream: String,
    /// Chance; comes back with the browser.
    pub state: [u8; 16],
    /// Who answers, to the letter.
    pub issuer: String,
    /// Who it must be; none when a server was named.
    pub did: Option<String>,
    /// What the PKCE verifier is made from.
    pub verifier: [u8; 32],
    /// The DPoP key of this sign-in and no other, PKCS#8.
    key: Vec<u8>,
    /// The key by which this cluster proved itself; the end must be of the same.
    pub kid: Option<String>,
    /// SHA-256 of the token with which the first person comes in.
    pub first_token_hash: Vec<u8>,
    /// The span in which it began: one sign-in is one trace, wherever it ends. Ids alone; empty where no traces are
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
    /// # Errors
    /// When no key can be made.
    pub fn begin(ticket: Ticket, upstream: &str, entropy: &dyn Entropy) -> Result<Self, AuthError> {
        let key = SigningKey::generate_pkcs8(Alg::Es256, entropy);
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

    /// `state`, as it travels.
    pub fn state(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.state)
    }

    /// What proves at the token endpoint that the code is ours (RFC 7636), and what is shown of it before.
    pub fn verifier(&self) -> Zeroizing<String> {
        Zeroizing::new(URL_SAFE_NO_PAD.encode(self.verifier))
    }

    pub fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(mac::sha256(self.verifier().as_bytes()))
    }

    /// # Errors
    /// When it is none, which only a defect makes.
    pub fn dpop_key(&self) -> Result<SigningKey, AuthError> {
        let key = SigningKey::from_pkcs8(Alg::Es256, &self.key);
        key.map_err(|error| AuthError::Internal(format!("the DPoP key: {error}")))
    }

    /// What the rules know it by, once it is answered.
    pub fn proof(&self) -> TicketId {
        let id = mac::sha256(&[b"atproto-state".as_slice(), &self.state].concat());
        TicketId::new(*id.first_chunk::<16>().unwrap_or(&[0; 16]))
    }

    /// What the rules are to remember of it.
    pub fn spent(&self) -> SpentProof {
        SpentProof {
            kind: Kind::AtprotoState.into(),
            proof_id: self.proof().to_vec(),
            expires_at_ms: self.ticket.expires_at_ms,
            client_id: String::new(),
        }
    }

    /// The cookie's own name: several sign-ins may be on their way in one browser.
    pub fn cookie(state: &str) -> String {
        let short: String = state.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
        format!("atproto_{short}")
    }

    /// # Errors
    /// When no browser would keep it.
    pub fn seal(&self, auth: &Auth) -> Result<String, AuthError> {
        let text = auth.seal_for_browser(PURPOSE, self)?;
        if text.len() > MAX_COOKIE_BYTES { Err(AuthError::TooLong) } else { Ok(text) }
    }

    /// Opens what this browser brought back.
    ///
    /// # Errors
    /// [`TicketError`]
    pub fn open(auth: &Auth, text: &str, browser: &str) -> Result<Self, TicketError> {
        let transaction: Self = auth.open_sealed(PURPOSE, text)?;
        if transaction.ticket.browser.is_none() {
            return Err(TicketError::NotOurs);
        }
        auth.check_ticket(&transaction.ticket, Some(browser))?;
        Ok(transaction)
    }
}
