//! **Authentication for all protocols**: sessions, passwords, throttles, login attempts and the one place that decides
//! the next step. Protocol slices parse requests into a [`ticket::LoginTarget`]; this room takes the user to it.
//!
//! | file | owns |
//! |---|---|
//! | `session` | the session cookie, and [`session::SignedIn`]: the permit that a live session was seen |
//! | `ticket` | a login in progress: sealed, carried by the browser, spent once inside the rules |
//! | `authorization` | a validated OAuth authorization request, and the responses to its client |
//! | `dispatch` | the next step: password, consent or the response |
//! | `complete` | the one write that ends a login |
//! | `password`, `throttle`, `trusted_browser` | the password step, and the counts of attempts |
//! | `app_sso` | from a session here to a cookie on an application's host |
//! | `user_code` | the code that a user types for a device |
//! | `write_key` | ids and secrets from the request id, so that a retry elsewhere makes the same ones |
//! | `keys` | the cluster's signing keys, opened |
//! | `rotation` | the rotation of signing keys |
//! | `operator` | the bearer text made from the cluster secret |
//! | `consistency_token` | the consistency token of an API caller |
//! | `subject` | the subject identifier of a user for a client |
//! | `machine_client` | machine clients at the check: app passwords and access tokens |
//! | `redirect_loop` | the guard against redirect loops between the check and the sign-in |
//! | `upstream/` | sign-in through an upstream provider |
//! | `policy/` | decides if this user may open this application now |
//! | `redirect_uri` | the one parser of addresses that users are redirected to |
//!
//! An unauthenticated visitor costs no write: the attempt is kept in the ticket. A login is one write
//! (docs/design/consistency.md).

pub mod app_sso;
pub mod authorization;
pub mod claims;
pub mod client_name;
pub mod complete;
pub mod consistency_token;
pub mod dispatch;
pub mod keys;
pub mod machine_client;
pub mod notices;
pub mod operator;
pub mod password;
pub mod picture;
pub mod policy;
mod recheck;
pub mod recovery;
pub mod redirect_loop;
pub mod redirect_uri;
pub mod rotation;
pub mod secrets;
pub mod session;
pub mod subject;
pub mod throttle;
pub mod ticket;
pub mod trusted_browser;
pub mod upstream;
pub mod user_code;
pub mod write_key;

use std::sync::Arc;

use conclave_state::{Stamp, State};

use conclave_base::runtime::Runtime;
use conclave_cluster::{Cluster, ProposeError, ViewError};
use conclave_config as config;
use conclave_crypto::{
    aead::Sealer,
    handle::{HandleKey, LineageTag},
    keys::ClusterKeys,
    password::PasswordPool,
};
use conclave_http::Outbound;

use keys::SigningKeys;
use policy::Policies;
use throttle::Throttles;
use upstream::Upstreams;

/// The configuration that this room needs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The issuer. Every link is built from it, never from a request.
    pub public_url: config::PublicUrl,
    pub login: config::Login,
    pub tokens: config::TokensConfig,
    pub authorization: config::Authorization,
    pub cookie_domain: Option<String>,
    /// Parent domains of application hosts that share one sign-in.
    pub app_domains: Vec<String>,
    /// Private networks that may be contacted at addresses chosen by clients or users.
    pub outbound: config::OutboundConfig,
    /// The servers that resolve identities of the Atmosphere network.
    pub atmosphere: config::Atmosphere,
    pub policy: config::PolicyConfig,
    /// The rules for client certificates.
    pub mtls: config::Mtls,
}

/// The entry point of this room. Cheap to clone.
#[derive(Clone)]
pub struct Auth {
    inner: Arc<Inner>,
}

struct Inner {
    cluster: Cluster,
    keys: Arc<ClusterKeys>,
    handles: HandleKey,
    lineage: LineageTag,
    tickets: Sealer,
    access_tokens: Sealer,
    signing: SigningKeys,
    secrets: secrets::Secrets,
    passwords: PasswordPool,
    throttles: Throttles,
    /// Attempts at the codes of devices; separate from passwords, whose limit they must not use up.
    user_codes: Throttles,
    /// Dynamic client registrations, by address.
    registrations: Throttles,
    upstreams: Upstreams,
    /// Callbacks from upstream providers, by address.
    upstream_attempts: Throttles,
    policies: Policies,
    claim_expressions: claims::ClaimExpressions,
    notices: notices::Notices,
    settings: Settings,
    runtime: Runtime,
}

/// The reason why a step failed, other than invalid input of the user.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The rules refused the command.
    #[error(transparent)]
    Refused(conclave_state::Refusal),
    /// The cluster could not accept the write; nothing was changed.
    #[error("the cluster cannot take writes at the moment")]
    Unavailable,
    /// The write was sent, and its outcome is unknown.
    #[error("the outcome of the write is unknown")]
    Unknown,
    /// This node is too busy; nothing was changed.
    #[error("this node is busy")]
    Busy,
    /// The ticket or cookie would be longer than browsers and proxies accept; nothing was changed.
    #[error("the request is longer than a browser can carry")]
    TooLong,
    /// A defect; the text is for the log.
    #[error("{0}")]
    Internal(String),
}

impl From<ProposeError> for AuthError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::Refused(refusal) => Self::Refused(refusal),
            ProposeError::Unavailable | ProposeError::Clock(_) => Self::Unavailable,
            ProposeError::Unknown => Self::Unknown,
            ProposeError::Busy => Self::Busy,
            ProposeError::TooLarge(why) => Self::Internal(why),
        }
    }
}

impl Auth {
    pub fn new(
        cluster: Cluster,
        keys: Arc<ClusterKeys>,
        passwords: PasswordPool,
        settings: Settings,
        runtime: Runtime,
    ) -> Self {
        let lineage = cluster.lineage();
        let inner = Inner {
            lineage: LineageTag::of(&lineage.cluster, lineage.epoch),
            handles: HandleKey::ring(&keys),
            tickets: Sealer::ring(&keys, |keys| &keys.ticket),
            access_tokens: Sealer::ring(&keys, |keys| &keys.access_token),
            signing: SigningKeys::new(Sealer::ring(&keys, |keys| &keys.sealing)),
            secrets: secrets::Secrets::new(&keys),
            throttles: Throttles::new(settings.login.throttle.clone(), runtime.clone()),
            registrations: Throttles::new(settings.login.throttle.clone(), runtime.clone()),
            upstream_attempts: Throttles::new(settings.login.throttle.clone(), runtime.clone()),
            notices: notices::Notices::default(),
            upstreams: Upstreams::new(&keys, Outbound::new(settings.outbound.allow.clone())),
            claim_expressions: claims::ClaimExpressions::default(),
            policies: Policies::new(&settings.policy),
            user_codes: Throttles::new(settings.login.throttle.clone(), runtime.clone()),
            cluster,
            keys,
            passwords,
            settings,
            runtime,
        };
        Self { inner: Arc::new(inner) }
    }

    pub fn cluster(&self) -> &Cluster {
        &self.inner.cluster
    }

    /// The delivery attempts of pending back-channel logouts.
    pub fn notices(&self) -> &notices::Notices {
        &self.inner.notices
    }

    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    pub fn runtime(&self) -> &Runtime {
        &self.inner.runtime
    }

    pub fn signing(&self) -> &SigningKeys {
        &self.inner.signing
    }

    /// The throttle of attempts at the codes of devices.
    pub fn user_codes(&self) -> &Throttles {
        &self.inner.user_codes
    }

    /// The throttle of dynamic client registrations, by address.
    pub fn registrations(&self) -> &Throttles {
        &self.inner.registrations
    }

    /// The policies, compiled, with their decision log.
    pub fn policies(&self) -> &Policies {
        &self.inner.policies
    }

    /// The claim expressions of clients.
    pub fn claim_expressions(&self) -> &claims::ClaimExpressions {
        &self.inner.claim_expressions
    }

    /// The upstream providers.
    pub fn upstreams(&self) -> &Upstreams {
        &self.inner.upstreams
    }

    /// The throttle of callbacks from upstream providers, by address.
    pub fn upstream_attempts(&self) -> &Throttles {
        &self.inner.upstream_attempts
    }

    pub fn passwords(&self) -> &PasswordPool {
        &self.inner.passwords
    }

    pub fn handles(&self) -> &HandleKey {
        &self.inner.handles
    }

    /// Seals and opens access tokens that only this cluster can read.
    pub fn access_tokens(&self) -> &Sealer {
        &self.inner.access_tokens
    }

    pub fn cluster_keys(&self) -> &ClusterKeys {
        &self.inner.keys
    }

    /// The tag of the cluster's current lineage, which every handle carries.
    pub fn lineage_tag(&self) -> LineageTag {
        self.inner.lineage
    }

    /// The time for decisions on `state`: this node's clock, but never earlier than the newest time in the log.
    pub fn now(&self, state: &State) -> Stamp {
        state.meta().clock.max(Stamp(self.inner.runtime.clock.now_ms()))
    }
}

/// The error that a visitor gets when the wait for a state version fails.
impl From<ViewError> for AuthError {
    fn from(error: ViewError) -> Self {
        match error {
            ViewError::FromTheFuture | ViewError::Behind => Self::Unavailable,
        }
    }
}
