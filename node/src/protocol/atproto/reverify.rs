//! Handles that let somebody in, looked at again: by whoever leads, a few at a time, each about once in `[atmosphere]
//! reverify`, and more often while one is not confirmed. What becomes of people, the rules decide
//! (`conclave_state::upstream`).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use conclave_proto::command::v1::{CheckHandle, check_handle::Finding, command::Body};
use conclave_state::{State, upstream::Identity};
use futures_util::{StreamExt as _, stream};

use super::{
    client::{self, ClientIdentity},
    did::Did,
    error::AtmosphereError,
    identifier::Handle,
    resolve::Resolver,
    self_check,
};
use crate::auth::{Auth, AuthError, derive::Derivation};
use conclave_cluster::{Occasion, SeenElsewhere, Vantage};
use conclave_crypto::mac;

/// How often the leader looks whether any is due.
const PERIOD: Duration = Duration::from_mins(1);
/// Looked at together: sign-ins have the network first.
const AT_ONCE: usize = 4;
/// Most of one round; the rest is due in the next.
const MOST_OF_ROUND: usize = 256;
/// When one that is not confirmed is looked at again; twice as long each time, up to the period.
const FIRST_PAUSE: Duration = Duration::from_mins(10);
/// Most doubtful ones whose pauses are remembered; beyond, all are due again.
const MOST_REMEMBERED: usize = 10_000;

/// What this node sees, for others.
pub(super) struct View(pub(super) Arc<Resolver>, pub(super) tokio::runtime::Handle);

impl Vantage for View {
    fn handle_of(
        &self,
        did: String,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Option<String>, String>> + Send>> {
        let resolver = Arc::clone(&self.0);
        // Not beside heartbeats: documents that people chose are parsed where pages are made.
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
        Ok(somebody) => Ok(somebody.handle.map(|handle| handle.as_str().to_owned())),
        Err(AtmosphereError::DidNotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// How often in a row a handle was not confirmed, and when it is looked at next, Unix milliseconds.
type Pauses = BTreeMap<String, (u32, u64)>;

/// The task.
pub struct Reverifier {
    auth: Auth,
    resolver: Arc<Resolver>,
    /// What this cluster is called, of which the document is looked at once.
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

    /// Once in a life of the process, when sign-in with Atmosphere is on.
    async fn look_at_own_document(&self) {
        let Some(client) = (*self.client).as_ref().filter(|client| client.is_confidential) else { return };
        let own = client::described(client, &self.auth.settings().public_url);
        match self_check::wrong_with(&self.resolver.net, client, &own).await {
            None => tracing::info!("account servers can read who this cluster is at {}", client.id),
            Some(why) => tracing::warn!(
                "nobody can sign in with Atmosphere while {} cannot be read: {why}; try `conclave doctor atmosphere`",
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

    /// Looks at those that are due; answers how many they were.
    pub async fn round(&self) -> usize {
        let state = self.auth.cluster().view();
        let due = self.due(&state);
        let count = due.len();
        stream::iter(due).for_each_concurrent(AT_ONCE, |identity| self.look(&state, identity)).await;
        count
    }

    fn due(&self, state: &State) -> Vec<Arc<Identity>> {
        let now = self.auth.now(state).0;
        let period = millis(self.auth.settings().atmosphere.reverify);
        let pauses = self.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = |identity: &&Arc<Identity>| {
            if identity.let_in.is_none() {
                return false;
            }
            match (pauses.get(&*identity.subject), identity.doubt()) {
                (Some((_, at)), _) => *at <= now,
                // Another leader found it so.
                (None, Some(_)) => true,
                (None, None) => now >= identity.looked_at().0 + early(&identity.subject, period),
            }
        };
        let networks = state.upstreams().filter(|upstream| upstream.is_atmosphere() && !upstream.disabled);
        let people = networks.flat_map(|upstream| state.identities_at(&upstream.name));
        people.filter(is_due).take(MOST_OF_ROUND).cloned().collect()
    }

    async fn look(&self, state: &State, identity: Arc<Identity>) {
        let (Some(by), Some(upstream)) = (&identity.let_in, state.upstream(&identity.upstream)) else {
            return;
        };
        let is_good = |handle: &str| {
            *by.handle == *handle || upstream.admits_from_atmosphere(&identity.subject, handle)
        };
        let found = self.found(&identity, &by.handle, is_good).await;
        let Some((finding, handle)) = found else {
            // Nobody could be asked, which is no step towards an unconfirmed handle. The resolver has warned.
            self.pause(&identity.subject, Finding::Unconfirmed);
            return;
        };
        self.pause(&identity.subject, finding);
        let settings = &self.auth.settings().atmosphere;
        let order = CheckHandle {
            upstream: identity.upstream.to_string(),
            subject: identity.subject.to_string(),
            finding: finding.into(),
            handle,
            patience_ms: millis(settings.reverify_patience),
        };
        let derivation = Derivation::fresh(&self.auth.cluster_keys().request, &*self.auth.runtime().entropy);
        let written = self.auth.cluster().propose(derivation.request(), Body::CheckHandle(order)).await;
        match written.map_err(AuthError::from) {
            Ok(committed) => tell(&identity, &committed.state),
            // It is due again.
            Err(error) => {
                tracing::debug!(did = %identity.subject, %error, "a look at a handle was not written")
            }
        }
    }

    /// What is the matter with the handle, and which one that is; none if the name service does not answer here. That
    /// it is another's is believed only where another node sees it too.
    async fn found(
        &self,
        identity: &Identity,
        by: &str,
        is_good: impl Fn(&str) -> bool,
    ) -> Option<(Finding, String)> {
        let here = seen(&self.resolver, &identity.subject).await;
        if let Ok(Some(handle)) = &here
            && is_good(handle)
        {
            return Some((Finding::Verified, handle.clone()));
        }
        let is_elsewhere = match Handle::parse(by, self.resolver.net.dev) {
            Ok(handle) => match self.resolver.did_of(&handle).await {
                Ok(did) => did.as_str() != &*identity.subject,
                Err(AtmosphereError::LookupUnavailable(_)) => return None,
                Err(_) => false,
            },
            Err(_) => false,
        };
        if is_elsewhere {
            let seen = self.auth.cluster().seen_elsewhere(&identity.subject, Occasion::Again).await;
            let agrees = match &seen {
                SeenElsewhere::Alone => true,
                SeenElsewhere::Seen(handle) => !handle.as_deref().is_some_and(&is_good),
                SeenElsewhere::Unknown => false,
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

/// The audit line.
fn tell(before: &Identity, state: &State) {
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
                "audit: {did} is signed out and not let in any more: the handle {by} {why}"
            );
        }
        (true, false) => tracing::warn!(
            { user.id = %now.user, atproto.did = did },
            "audit: {did} may come in again: the handle is confirmed"
        ),
        _ => {}
    }
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

/// Up to a tenth sooner, each at a time of its own: people who came on one day are not all looked up at one moment.
fn early(subject: &str, length_ms: u64) -> u64 {
    let chance = mac::sha256(subject.as_bytes()).first().copied().unwrap_or_default();
    length_ms - length_ms / 10 * u64::from(chance) / 255
}
