//! The cluster's signing keys, opened. Rows hold the private key sealed. An opened key is kept by its key id, which is
//! never reused, and is used only while the caller's state contains it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use conclave_proto::command::v1::{AddSigningKey, command::Body};
use conclave_state::{Reason, State, client::SigningAlgorithm, key};
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use conclave_base::runtime::{Entropy, Runtime};
use conclave_crypto::{
    aead::{SealError, Sealer},
    jwk::Alg,
    jwt::{JwtError, JwtSigningKey, VerifyingKey},
};

use super::{Auth, AuthError, write_key::WriteKey};

/// The algorithms for which every cluster has a key. A PS256 key is made when a client first needs one: RSA keys are
/// slow to make, and few clients need it.
const ALGORITHMS: [SigningAlgorithm; 3] =
    [SigningAlgorithm::Rs256, SigningAlgorithm::Es256, SigningAlgorithm::Eddsa];
/// The interval at which a node checks for missing keys. A key is missing only right after the cluster was founded, and
/// no request is served before all keys exist.
const PERIOD: Duration = Duration::from_millis(5);
/// Maximum number of opened keys; the rules publish no more.
const MAX_OPEN: usize = 64;

/// Opens and keeps signing keys.
pub struct SigningKeys {
    sealer: Sealer,
    open: Mutex<BTreeMap<Arc<str>, Arc<JwtSigningKey>>>,
}

fn purpose(kid: &str) -> String {
    format!("signing-key/{kid}")
}

/// The algorithm as a type of the crypto room.
pub const fn alg(algorithm: SigningAlgorithm) -> Option<Alg> {
    match algorithm {
        SigningAlgorithm::Rs256 => Some(Alg::Rs256),
        SigningAlgorithm::Ps256 => Some(Alg::Ps256),
        SigningAlgorithm::Es256 => Some(Alg::Es256),
        SigningAlgorithm::Eddsa => Some(Alg::EdDsa),
        SigningAlgorithm::Unspecified => None,
    }
}

/// True if every algorithm has a key. False only right after the cluster was founded.
pub fn all_present(state: &State) -> bool {
    ALGORITHMS.into_iter().all(|algorithm| state.active_key(algorithm).is_some())
}

impl SigningKeys {
    pub const fn new(sealer: Sealer) -> Self {
        Self { sealer, open: Mutex::new(BTreeMap::new()) }
    }

    /// The key that signs with this algorithm in `state`.
    ///
    /// # Errors
    /// Fails if there is none yet, or it cannot be opened.
    pub fn signer(
        &self,
        state: &State,
        algorithm: SigningAlgorithm,
    ) -> Result<Arc<JwtSigningKey>, AuthError> {
        let row = state.active_key(algorithm).ok_or(AuthError::Unavailable)?;
        self.opened(row)
    }

    /// The key with this id, as long as the state has it.
    ///
    /// # Errors
    /// Fails if there is none, or it cannot be opened.
    pub fn signer_named(&self, state: &State, kid: &str) -> Result<Arc<JwtSigningKey>, AuthError> {
        self.opened(state.key(kid).ok_or(AuthError::Unavailable)?)
    }

    /// The public key with this id in `state`; none when the state has no such key.
    pub fn verifier(&self, state: &State, kid: &str) -> Option<VerifyingKey> {
        let row = state.key(kid)?;
        if let Some(key) = self.open.lock().unwrap_or_else(PoisonError::into_inner).get(&row.kid) {
            return Some(key.verifying_key());
        }
        // The private key is not needed, and may be sealed under a secret that this node no longer has.
        let jwk = serde_json::from_slice(&row.public_jwk).ok()?;
        VerifyingKey::from_jwk(&jwk).ok()
    }

    /// The row's value, sealed again under the current key; `None` if it already is.
    ///
    /// # Errors
    /// Fails if this node cannot open it.
    pub fn resealed(
        &self,
        row: &key::SigningKey,
        entropy: &dyn Entropy,
    ) -> Result<Option<Vec<u8>>, SealError> {
        self.sealer.renewed(&purpose(&row.kid), &row.sealed_private_key, entropy)
    }

    fn opened(&self, row: &key::SigningKey) -> Result<Arc<JwtSigningKey>, AuthError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = open.get(&row.kid) {
            return Ok(Arc::clone(key));
        }
        let internal =
            |e: &dyn std::fmt::Display| AuthError::Internal(format!("signing key {}: {e}", row.kid));
        let pkcs8 =
            self.sealer.open(&purpose(&row.kid), &row.sealed_private_key).map_err(|e| internal(&e))?;
        let alg = alg(row.algorithm).ok_or_else(|| internal(&"unknown algorithm"))?;
        let key = Arc::new(JwtSigningKey::from_pkcs8(alg, &pkcs8).map_err(|e| internal(&e))?);
        if open.len() >= MAX_OPEN {
            open.clear();
        }
        open.insert(row.kid.clone(), Arc::clone(&key));
        Ok(key)
    }
}

/// The generation of a private key (PKCS#8) on a blocking thread.
struct Making(JoinHandle<Result<Zeroizing<Vec<u8>>, JwtError>>);

impl Making {
    /// RSA takes up to a second of a core, so this never runs on the async runtime's threads.
    fn start(alg: Alg, runtime: &Runtime) -> Self {
        let entropy = Arc::clone(&runtime.entropy);
        Self(tokio::task::spawn_blocking(move || JwtSigningKey::generate_pkcs8(alg, &*entropy)))
    }

    async fn done(self) -> Result<Zeroizing<Vec<u8>>, AuthError> {
        let made = self.0.await.map_err(|e| cannot_be_made(&e))?;
        made.map_err(|e| cannot_be_made(&e))
    }
}

/// The RSA key of a cluster that is being founded. Its generation begins while the node still opens its log, because
/// the primes take most of a first start. The key is dropped, and overwritten in memory, if the cluster already has
/// one.
pub struct EarlyRsa(Making);

impl EarlyRsa {
    /// Begins at once, on a thread for blocking work.
    pub fn start(runtime: &Runtime) -> Self {
        Self(Making::start(Alg::Rs256, runtime))
    }

    /// The key that this task makes, as PKCS#8.
    #[cfg(any(test, feature = "testing"))]
    pub fn of(making: tokio::task::JoinHandle<Result<Zeroizing<Vec<u8>>, JwtError>>) -> Self {
        Self(Making(making))
    }
}

fn cannot_be_made(error: &dyn std::fmt::Display) -> AuthError {
    AuthError::Internal(format!("a signing key cannot be made: {error}"))
}

impl Auth {
    /// Makes the first keys of a cluster while this node leads; `early` becomes the first RSA key. Returns once every
    /// algorithm has a key.
    pub async fn ensure_signing_keys(self, mut early: Option<EarlyRsa>) {
        let mut ticks = tokio::time::interval(PERIOD);
        loop {
            ticks.tick().await;
            let state = self.cluster().view();
            let missing: Vec<_> = ALGORITHMS.into_iter().filter(|a| state.active_key(*a).is_none()).collect();
            if missing.is_empty() {
                return;
            }
            if !self.cluster().is_leader() {
                continue;
            }
            // Concurrently, because RSA takes long.
            let making = missing.into_iter().map(|algorithm| {
                let early = early.take_if(|_| algorithm == SigningAlgorithm::Rs256);
                self.add_signing_key(algorithm, early, false)
            });
            for made in futures_util::future::join_all(making).await {
                if let Err(error) = made {
                    tracing::debug!(%error, "no signing key was made; another node may have made it");
                }
            }
        }
    }

    /// Makes and publishes the key that will follow the active one.
    ///
    /// # Errors
    /// Fails if there is one already, or the write fails.
    pub async fn publish_next_key(&self, algorithm: SigningAlgorithm) -> Result<(), AuthError> {
        self.add_signing_key(algorithm, None, true).await
    }

    /// Ensures that there is a key for this algorithm before a client is registered to rely on it.
    ///
    /// # Errors
    /// [`AuthError`], also for an unspecified algorithm.
    pub async fn provide_signing_key(&self, algorithm: SigningAlgorithm) -> Result<(), AuthError> {
        if self.cluster().view().active_key(algorithm).is_some() {
            return Ok(());
        }
        match self.add_signing_key(algorithm, None, false).await {
            Err(AuthError::Refused(refusal)) if refusal.reason == Reason::KeyExists => Ok(()),
            result => result,
        }
    }

    async fn add_signing_key(
        &self,
        algorithm: SigningAlgorithm,
        early: Option<EarlyRsa>,
        next: bool,
    ) -> Result<(), AuthError> {
        let alg = alg(algorithm).ok_or_else(|| cannot_be_made(&"unknown algorithm"))?;
        let making = early.map_or_else(|| Making::start(alg, self.runtime()), |early| early.0);
        let pkcs8 = making.done().await?;
        let key = JwtSigningKey::from_pkcs8(alg, &pkcs8).map_err(|e| cannot_be_made(&e))?;
        let keys = &self.inner.signing;
        let sealed = keys
            .sealer
            .seal(&purpose(key.kid()), &pkcs8, &*self.runtime().entropy)
            .map_err(|e| cannot_be_made(&e))?;
        let command = AddSigningKey {
            kid: key.kid().to_owned(),
            algorithm: algorithm.into(),
            public_jwk: serde_json::to_vec(&key.public_jwk()).map_err(|e| cannot_be_made(&e))?,
            sealed_private_key: sealed,
            only_if_absent: !next,
            next,
        };
        let write_key = WriteKey::fresh(&self.deriving_keys().request, &*self.runtime().entropy);
        self.cluster().propose(write_key.request(), Body::AddSigningKey(command)).await?;
        Ok(())
    }
}
