//! Repeated verification of the handles that admitted users: by the leader, a few at a time, each about once in
//! `[atmosphere] reverify`, and more often while a handle is not confirmed. The rules decide what follows for a user
//! (`conclave_state::upstream`).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use conclave_proto::command::v1::{CheckHandle, check_handle::Finding, command::Body};
use conclave_state::{State, upstream::LinkedIdentity};
use futures_util::{StreamExt as _, stream};

use super::{
    client::{self, ClientIdentity},
    did::Did,
    error::AtmosphereError,
    identifier::AtprotoHandle,
    resolve::Resolver,
    self_check,
};
use conclave_auth::{Auth, AuthError, write_key::WriteKey};
use conclave_cluster::{HandleResolver, RemoteView, VerificationReason};
use conclave_crypto::mac;

/// The interval at which the leader checks for handles that are due.
const PERIOD: Duration = Duration::from_mins(1);
/// Maximum number of concurrent verifications: sign-ins have priority on the network.
const AT_ONCE: usize = 4;
/// Maximum number of handles in one round; the rest is due in the next.
const MOST_OF_ROUND: usize = 256;
/// The first pause before an unconfirmed handle is verified again; it doubles each time, up to the period.
const FIRST_PAUSE: Duration = Duration::from_mins(10);
/// Maximum number of unconfirmed handles whose pauses are remembered; beyond it all are due again.
const MOST_REMEMBERED: usize = 10_000;

/// Resolves handles for other nodes.
pub(super) struct View(pub(super) Arc<Resolver>, pub(super) tokio::runtime::Handle);

impl HandleResolver for View {
    fn handle_of(
        &self,
        did: String,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Option<String>, String>> + Send>> {
        let resolver = Arc::clone(&self.0);
        // Not on the runtime of the heartbeats: documents that users chose are parsed on the runtime that renders
        // pages.
        let looking = self.1.spawn(async move { seen(&resolver, &did).await });
        Box::pin(async move {
            let seen = looking.await.map_err(|error| error.to_string())?;
            seen.map_err(|error| error.to_string())
        })
    }
}

async fn seen(resolver: &Resolver, did: &str) -> Result<Option<String>, AtmosphereError> {
    let did = Did::parse(did, resolver.net.dev)?;
    match resolver.by_did(&did).await {
        Ok(identity) => Ok(identity.handle.map(|handle| handle.as_str().to_owned())),
        Err(AtmosphereError::DidNotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The number of consecutive failures of a handle, and the time of its next verification, Unix milliseconds.
type Pauses = BTreeMap<String, (u32, u64)>;

/// The background task.
pub struct Reverifier {
    auth: Auth,
    resolver: Arc<Resolver>,
    /// The client identity of this cluster, whose document is checked once.
    client: Arc<Option<ClientIdentity>>,
    pauses: Mutex<Pauses>,
}

impl Reverifier {
    pub(super) const fn new(
        auth: Auth,
        resolver: Arc<Resolver>,
        client: Arc<Option<ClientIdentity>>,
    ) -> Self {
        Self { auth, resolver, client, pauses: Mutex::new(BTreeMap::new()) }
    }

    /// Checks this cluster's own document, once per process, when sign-in with Atmosphere is enabled.
    async fn look_at_own_document(&self) {
        let Some(client) = (*self.client).as_ref().filter(|client| client.is_confidential) else { return };
        let own = client::described(client, &self.auth.settings().public_url);
        match self_check::wrong_with(&self.resolver.net, client, &own).await {
            None => tracing::info!("account servers can read this cluster's document at {}", client.id),
            Some(why) => tracing::warn!(
                "sign-in with Atmosphere fails while {} cannot be read: {why}; try `conclave doctor atmosphere`",
                client.id
            ),
        }
    }

    /// Runs until the task is dropped.
    pub async fn run(self) {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut is_looked_at = false;
        loop {
            ticks.tick().await;
            if !is_looked_at && super::row(&self.auth.cluster().view()).is_some() {
                self.look_at_own_document().await;
                is_looked_at = true;
            }
            if self.auth.cluster().is_leader() {
                self.round().await;
            }
        }
    }

    /// Verifies the handles that are due; returns their number.
    pub async fn round(&self) -> usize {
        let state = self.auth.cluster().view();
        let due = self.due(&state);
        let count = due.len();
        stream::iter(due).for_each_concurrent(AT_ONCE, |identity| self.look(&state, identity)).await;
        count
    }

    fn due(&self, state: &State) -> Vec<Arc<LinkedIdentity>> {
        let now = self.auth.now(state).0;
        let period = millis(self.auth.settings().atmosphere.reverify);
        let pauses = self.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = |identity: &&Arc<LinkedIdentity>| {
            if identity.let_in.is_none() {
                return false;
            }
            match (pauses.get(&*identity.subject), identity.doubt()) {
                (Some((_, at)), _) => *at <= now,
                // Another leader recorded the doubt.
                (None, Some(_)) => true,
                (None, None) => now >= identity.looked_at().0 + early(&identity.subject, period),
            }
        };
        let networks = state.upstreams().filter(|upstream| upstream.is_atmosphere() && !upstream.disabled);
        let people = networks.flat_map(|upstream| state.identities_at(&upstream.name));
        people.filter(is_due).take(MOST_OF_ROUND).cloned().collect()
    }

    async fn look(&self, state: &State, identity: Arc<LinkedIdentity>) {
        let (Some(by), Some(upstream)) = (&identity.let_in, state.upstream(&identity.upstream)) else {
            return;
        };
        let is_good = |handle: &str| {
            *by.handle == *handle || upstream.admits_from_atmosphere(&identity.subject, handle)
        };
        let found = self.found(&identity, &by.handle, is_good).await;
        let Some((finding, handle)) = found else {
            // No lookup was possible, which is not evidence against the handle. The resolver has logged a warning.
            self.pause(&identity.subject, Finding::Unconfirmed);
            return;
        };
        self.pause(&identity.subject, finding);
        let settings = &self.auth.settings().atmosphere;
        let command = CheckHandle {
            upstream: identity.upstream.to_string(),
            subject: identity.subject.to_string(),
            finding: finding.into(),
            handle,
            patience_ms: millis(settings.reverify_patience),
        };
        let write_key = WriteKey::fresh(&self.auth.cluster_keys().request, &*self.auth.runtime().entropy);
        let written = self.auth.cluster().propose(write_key.request(), Body::CheckHandle(command)).await;
        match written.map_err(AuthError::from) {
            Ok(committed) => tell(&identity, &committed.state),
            // It is due again.
            Err(error) => {
                tracing::debug!(did = %identity.subject, %error, "the result of verifying a handle was not written")
            }
        }
    }

    /// The finding about the handle, and the handle itself; `None` if the name service does not respond here. A handle
    /// counts as another user's only if another node, where there is one, sees that too.
    async fn found(
        &self,
        identity: &LinkedIdentity,
        by: &str,
        is_good: impl Fn(&str) -> bool,
    ) -> Option<(Finding, String)> {
        let here = seen(&self.resolver, &identity.subject).await;
        if let Ok(Some(handle)) = &here
            && is_good(handle)
        {
            return Some((Finding::Verified, handle.clone()));
        }
        let is_elsewhere = match AtprotoHandle::parse(by, self.resolver.net.dev) {
            Ok(handle) => match self.resolver.did_of(&handle).await {
                Ok(did) => did.as_str() != &*identity.subject,
                Err(AtmosphereError::LookupUnavailable(_)) => return None,
                Err(_) => false,
            },
            Err(_) => false,
        };
        if is_elsewhere {
            let seen =
                self.auth.cluster().resolve_on_peer(&identity.subject, VerificationReason::Again).await;
            let agrees = match &seen {
                RemoteView::Alone => true,
                RemoteView::Seen(handle) => !handle.as_deref().is_some_and(&is_good),
                RemoteView::Unknown => false,
            };
            if agrees {
                return Some((Finding::Elsewhere, by.to_owned()));
            }
        }
        if matches!(here, Err(AtmosphereError::LookupUnavailable(_))) {
            return None;
        }
        Some((Finding::Unconfirmed, by.to_owned()))
    }

    fn pause(&self, subject: &str, finding: Finding) {
        let mut pauses = self.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        if finding == Finding::Verified {
            pauses.remove(subject);
            return;
        }
        if pauses.len() >= MOST_REMEMBERED {
            pauses.clear();
        }
        let now = self.auth.now(&self.auth.cluster().view()).0;
        let times = pauses.get(subject).map_or(0, |(times, _)| *times).saturating_add(1);
        let pause = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(times - 1));
        let pause = pause.min(self.auth.settings().atmosphere.reverify);
        pauses.insert(subject.to_owned(), (times, now + early(subject, millis(pause))));
    }
}

/// Logs the audit line.
fn tell(before: &LinkedIdentity, state: &State) {
    let Some(now) = state.identity(&before.upstream, &before.subject) else { return };
    let (did, by) = (&*now.subject, before.let_in.as_ref().map_or("", |by| &*by.handle));
    match (before.is_held_out(), now.is_held_out()) {
        (false, true) => {
            let why = if now.doubt().is_some_and(|doubt| doubt.elsewhere) {
                "is another DID's now"
            } else {
                "was not confirmed for too long"
            };
            tracing::warn!(
                { user.id = %now.user, atproto.did = did },
                "audit: {did} is signed out and not admitted any more: the handle {by} {why}"
            );
        }
        (true, false) => tracing::warn!(
            { user.id = %now.user, atproto.did = did },
            "audit: {did} may sign in again: the handle is confirmed"
        ),
        _ => {}
    }
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

/// Subtracts up to a tenth of the interval, by a hash of the subject, so that users who were admitted on one day are
/// not all verified at one moment.
fn early(subject: &str, length_ms: u64) -> u64 {
    let chance = mac::sha256(subject.as_bytes()).first().copied().unwrap_or_default();
    length_ms - length_ms / 10 * u64::from(chance) / 255
}
