//! **Who is this, in any protocol**: sessions, passwords, throttles, login attempts and the one place that decides what
//! comes next. Protocol slices parse requests and say what they want ([`ticket::Target`]); this room gets the person
//! there.
//!
//! | file | owns |
//! |---|---|
//! | `session` | the session cookie, and [`session::SignedIn`]: the permit that a live session was seen |
//! | `ticket` | a login on its way: sealed, carried by the browser, spent once inside the rules |
//! | `authorization` | a validated OAuth authorization request, and the ways back to its client |
//! | `dispatch` | what comes next: password, consent, the way home |
//! | `complete` | the one write that ends a login |
//! | `password`, `throttle`, `device` | the password step, and whose attempts count where |
//! | `handover` | from a session here to a cookie on an application's host |
//! | `user_code` | what a person types for a device |
//! | `derive` | ids and secrets from the request id, so that a retry elsewhere makes the same ones |
//! | `keys` | the cluster's signing keys, opened |
//! | `rotation` | when signing keys change |
//! | `operator` | the bearer text of whoever holds the cluster secret |
//! | `seen` | the log index that a caller of the API has seen |
//! | `subject` | what a person is called towards a client |
//! | `program` | programs at the check: app passwords, and who judges access tokens |
//! | `bounce` | a browser that goes back and forth between the check and the sign-in |
//! | `upstream/` | sign-in at another provider |
//! | `policy/` | may this person open this application, now |
//! | `redirect_uri` | the one parser of addresses that people are sent to |
//! | `pages/` | the routes of login, consent, logout and home |
//!
//! Unauthenticated visitors cost no write: their attempt lives in the ticket. A login is one write (design.md §7).

pub mod authorization;
pub mod bounce;
pub mod claims;
pub mod client_name;
pub mod complete;
pub mod derive;
pub mod device;
pub mod dispatch;
pub mod handover;
pub mod keys;
pub mod notices;
pub mod operator;
pub mod pages;
pub mod password;
pub mod picture;
pub mod policy;
pub mod program;
mod recheck;
pub mod recovery;
pub mod redirect_uri;
pub mod rotation;
pub mod secrets;
pub mod seen;
pub mod session;
pub mod subject;
pub mod throttle;
pub mod ticket;
pub mod upstream;
pub mod user_code;

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

/// What this room needs from the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The issuer; every link is built from it, never from a request.
    pub public_url: config::PublicUrl,
    pub login: config::Login,
    pub tokens: config::Tokens,
    pub authorization: config::Authorization,
    pub cookie_domain: Option<String>,
    /// Parent domains of applications' hosts on which one sign-in does for all of them.
    pub app_domains: Vec<String>,
    /// Private networks that may be reached when somebody else chose the address.
    pub outbound: config::Outbound,
    /// Where identities of the Atmosphere network are looked up.
    pub atmosphere: config::Atmosphere,
    pub policy: config::Policy,
    /// What certificates of clients are good for.
    pub mtls: config::Mtls,
}

/// The room's door. Cheap to clone.
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
    /// Attempts at the codes of devices; apart from passwords, whose limit they must not use up.
    user_codes: Throttles,
    /// Clients that register themselves.
    registrations: Throttles,
    upstreams: Upstreams,
    /// Callbacks from providers, by address.
    upstream_attempts: Throttles,
    policies: Policies,
    claim_expressions: claims::ClaimExpressions,
    notices: notices::Notices,
    settings: Settings,
    runtime: Runtime,
}

/// Why a step could not be taken, besides what the person did.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The rules said no.
    #[error(transparent)]
    Refused(conclave_state::Refusal),
    /// The cluster could not take the write; nothing happened.
    #[error("the cluster cannot take writes at the moment")]
    Unavailable,
    /// The write was sent and nobody knows what became of it.
    #[error("the outcome of the write is unknown")]
    Unknown,
    /// This node is too busy; nothing happened.
    #[error("this node is busy")]
    Busy,
    /// What the browser would have to carry is longer than browsers and proxies take; nothing happened.
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

    /// What became of back-channel logouts that wait.
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

    /// Attempts at the codes of devices.
    pub fn user_codes(&self) -> &Throttles {
        &self.inner.user_codes
    }

    /// Clients that register themselves, by address.
    pub fn registrations(&self) -> &Throttles {
        &self.inner.registrations
    }

    /// What policies need and keep.
    pub fn policies(&self) -> &Policies {
        &self.inner.policies
    }

    /// Claims that clients have of their own.
    pub fn claim_expressions(&self) -> &claims::ClaimExpressions {
        &self.inner.claim_expressions
    }

    /// Sign-in at other providers.
    pub fn upstreams(&self) -> &Upstreams {
        &self.inner.upstreams
    }

    /// Callbacks from providers, by address.
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

    /// What handles of this cluster's present life carry.
    pub fn lineage_tag(&self) -> LineageTag {
        self.inner.lineage
    }

    /// The time for decisions on `state`: this node's clock, but never before what the log has already seen.
    pub fn now(&self, state: &State) -> Stamp {
        state.meta().clock.max(Stamp(self.inner.runtime.clock.now_ms()))
    }
}

/// What a failed wait for a version means to a visitor.
impl From<ViewError> for AuthError {
    fn from(error: ViewError) -> Self {
        match error {
            ViewError::FromTheFuture | ViewError::Behind => Self::Unavailable,
        }
    }
}
