//! Clients at all nodes, and an operator who revokes. All their operations are recorded in the history.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use conclave_client::v1;
use tokio::task::JoinHandle;

use crate::{
    history::{History, OperationResult, Seen, When},
    random::Random,
};

use super::{client::BrowserClient, cluster::LiveCluster, final_checks::HeldSession};

/// Users who sign in, each with one session at a time.
const PEOPLE: usize = 8;
/// The pause of a client between two actions: the machine must also run the cluster.
const PAUSE: Duration = Duration::from_millis(4);
/// Time limit of a response. Longer than any write is held.
const WAIT_LIMIT: Duration = Duration::from_secs(12);
/// The pause between two registrations.
const REGISTRATION: Duration = Duration::from_millis(50);
/// The percentage of checks that request the home page instead of the application.
const AT_HOME: u64 = 20;
/// Actions in a session before its user is revoked or abandons it.
const ACTIONS: u64 = 120;

pub(super) struct Traffic {
    over: Arc<AtomicBool>,
    people: Vec<JoinHandle<()>>,
    held: Arc<Mutex<Vec<HeldSession>>>,
}

impl Traffic {
    /// Every session of the run, with its cookies.
    pub(super) async fn stop(self) -> Vec<HeldSession> {
        self.over.store(true, Ordering::Relaxed);
        for person in self.people {
            // A client that panicked has already reported it.
            let _ = person.await;
        }
        std::mem::take(&mut *self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Person {
    user: String,
    cluster: Arc<LiveCluster>,
    history: Arc<History>,
    random: Random,
    http: reqwest::Client,
    over: Arc<AtomicBool>,
    held: Arc<Mutex<Vec<HeldSession>>>,
}

pub(super) fn password(user: &str) -> String {
    format!("{user} has a long password")
}

pub(super) async fn start(
    cluster: &Arc<LiveCluster>,
    history: &Arc<History>,
    seed: u64,
) -> anyhow::Result<Traffic> {
    let api = cluster.api(WAIT_LIMIT)?;
    let over = Arc::new(AtomicBool::new(false));
    let held = Arc::<Mutex<Vec<HeldSession>>>::default();
    let mut people =
        vec![tokio::spawn(register(Arc::clone(cluster), Arc::clone(history), Arc::clone(&over)))];
    for number in 0..PEOPLE {
        let user = format!("person{number}");
        let request =
            v1::CreateUserRequest { username: user.clone(), password: password(&user), ..Default::default() };
        api.users().create(request).await?;
        let person = Person {
            user,
            cluster: Arc::clone(cluster),
            history: Arc::clone(history),
            random: Random::new(seed.wrapping_mul(1_000).wrapping_add(number as u64)),
            http: browser()?,
            over: Arc::clone(&over),
            held: Arc::clone(&held),
        };
        people.push(tokio::spawn(person.live()));
    }
    Ok(Traffic { over, people, held })
}

pub(super) fn browser() -> anyhow::Result<reqwest::Client> {
    let builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    Ok(builder.timeout(WAIT_LIMIT).connect_timeout(Duration::from_secs(1)).build()?)
}

impl Person {
    async fn live(mut self) {
        while !self.over.load(Ordering::Relaxed) {
            let Some((client, session)) = self.sign_in().await else { continue };
            let actions = 20 + self.random.below(ACTIONS);
            let revoke_at = self.random.below(actions * 2);
            // Two windows of one browser, so that checks continue while a revocation is in progress.
            let mut token = None;
            for action in 0..actions {
                if self.over.load(Ordering::Relaxed) {
                    break;
                }
                if action == revoke_at {
                    self.revoke(&client, session).await;
                    break;
                }
                if self.random.below(12) == 0 {
                    token = self.use_grant(&client, session, token).await;
                } else {
                    self.check(&client, session).await;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn sign_in(&mut self) -> Option<(BrowserClient, u64)> {
        let (first, second) = (self.node().1, self.node().1);
        let mut client = BrowserClient::new(self.http.clone(), &self.user);
        if client.sign_in([&first, &second], &password(&self.user)).await.is_err() {
            self.history.count("logins failed or unanswered");
            self.history.ran(OperationResult::Unknown);
            tokio::time::sleep(PAUSE * 5).await;
            return None;
        }
        let session = self.history.signed_in(&self.user);
        self.history.ran(OperationResult::Acknowledged);
        self.held.lock().unwrap_or_else(PoisonError::into_inner).push((session, client.clone()));
        Some((client, session))
    }

    async fn check(&mut self, client: &BrowserClient, session: u64) {
        let (node, url) = self.node();
        if !self.random.percent(AT_HOME) {
            return look(&self.history, client, session, node, &url).await;
        }
        let began = self.history.now();
        let seen = client.at_home(&url).await;
        note(&self.history, session, node, began, seen);
    }

    /// Obtains a code and redeems it at two nodes at once; later, rotates its refresh token.
    async fn use_grant(
        &mut self,
        client: &BrowserClient,
        session: u64,
        token: Option<String>,
    ) -> Option<String> {
        let (one, other) = (self.node().1, self.node().1);
        if let Some(token) = token {
            return self.race(client, session, &token, [&one, &other]).await;
        }
        let code = client.clone().code(&one).await.ok()?;
        let (first, second) = tokio::join!(client.redeem(&one, &code), client.redeem(&other, &code));
        for outcome in [first, second] {
            match outcome {
                Ok(Some(_)) => {
                    self.history.redeemed(&code);
                    self.history.ran(OperationResult::Acknowledged);
                }
                Ok(None) => {
                    self.history.count("codes refused the second time");
                    self.history.ran(OperationResult::Refused);
                }
                Err(_) => {
                    self.history.count("redemptions unanswered");
                    self.history.ran(OperationResult::Unknown);
                }
            }
        }
        // The second redemption has ended the grant (RFC 6749 §4.1.2): its refresh token must not be used.
        let code = client.clone().code(&other).await.ok()?;
        let Ok(Some(refresh)) = client.redeem(&one, &code).await else { return None };
        self.history.redeemed(&code);
        self.history.refresh_token(session, &refresh, true);
        Some(refresh)
    }

    /// Exchanges a refresh token at two nodes at once: every response contains the same successor.
    async fn race(
        &mut self,
        client: &BrowserClient,
        session: u64,
        token: &str,
        nodes: [&str; 2],
    ) -> Option<String> {
        let [one, other] = nodes;
        let (first, second) = tokio::join!(client.refresh(one, token), client.refresh(other, token));
        let (mut next, mut certain) = (None, true);
        for outcome in [first, second] {
            match outcome {
                Ok(Some(child)) => {
                    self.history.count("refreshes");
                    self.history.ran(OperationResult::Acknowledged);
                    self.history.rotated(token, &child);
                    next = Some(child);
                }
                Ok(None) => {
                    self.history.count("refreshes refused");
                    self.history.ran(OperationResult::Refused);
                    certain = false;
                }
                Err(_) => {
                    self.history.count("refreshes unanswered");
                    self.history.ran(OperationResult::Unknown);
                    certain = false;
                }
            }
        }
        self.history.refresh_token(session, next.as_deref().unwrap_or(token), certain);
        next.filter(|_| certain)
    }

    /// Revokes everything of this user, by an operator at any node; clients continue meanwhile.
    async fn revoke(&mut self, client: &BrowserClient, session: u64) {
        let (node, _) = self.node();
        let Ok(api) = self.cluster.api_of([node].into_iter().chain(self.cluster.places()), WAIT_LIMIT) else {
            return;
        };
        let ended = self.history.revoking(&self.user);
        let began = self.history.now();
        let revoking = async {
            let request = v1::RevokeUserSessionsRequest { user: self.user.clone(), app_passwords: false };
            let outcome = api.sessions().revoke_of_user(request).await;
            if outcome.is_ok() {
                self.history.revoked(&ended, began);
                self.history.ran(OperationResult::Acknowledged);
            } else {
                self.history.count("revocations failed or unknown");
                self.history.ran(OperationResult::Unknown);
            }
            outcome.is_ok()
        };
        let (cluster, history) = (Arc::clone(&self.cluster), Arc::clone(&self.history));
        let watching = async {
            for turn in 0_usize.. {
                let places = cluster.places();
                let Some(node) = places.get(turn % places.len().max(1)).copied() else { continue };
                look(&history, client, session, node, &cluster.url(node)).await;
                tokio::time::sleep(PAUSE / 4).await;
            }
        };
        tokio::pin!(watching);
        let acknowledged = tokio::select! {
            acknowledged = revoking => acknowledged,
            () = &mut watching => false,
        };
        if acknowledged {
            // The critical moment: right after the acknowledgement, at every node, several times.
            for node in [self.cluster.places(), self.cluster.places()].concat() {
                look(&self.history, client, session, node, &self.cluster.url(node)).await;
            }
        }
    }

    fn node(&mut self) -> (u64, String) {
        let node = self.random.pick(&self.cluster.places()).copied().unwrap_or(1);
        (node, self.cluster.url(node))
    }
}

/// A forward-auth check, recorded in the history.
async fn look(history: &History, client: &BrowserClient, session: u64, node: u64, url: &str) {
    let began = history.now();
    let seen = client.check(url).await;
    history.count("forward-auth checks");
    note(history, session, node, began, seen);
}

fn note(history: &History, session: u64, node: u64, began: When, seen: Seen) {
    history.checked(session, node, began, seen);
    history.ran(if seen == Seen::Unavailable {
        OperationResult::Unknown
    } else {
        OperationResult::Acknowledged
    });
}

/// Creates one user after the other, each at the next node, until the traffic stops: every acknowledged one must exist
/// at the end.
async fn register(cluster: Arc<LiveCluster>, history: Arc<History>, over: Arc<AtomicBool>) {
    for number in 0_usize.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let places = cluster.places();
        let place = places.get(number % places.len().max(1)).copied().unwrap_or(1);
        let Ok(api) = cluster.api_of([place].into_iter().chain(places), WAIT_LIMIT) else { return };
        let username = format!("serial{number}");
        let request = v1::CreateUserRequest { username: username.clone(), ..Default::default() };
        match api.users().create(request).await {
            Ok(_) => {
                history.ran(OperationResult::Acknowledged);
                history.count("users created");
                history.user_created(&username);
            }
            Err(conclave_client::Error::Refused(_)) => history.ran(OperationResult::Refused),
            Err(_) => history.ran(OperationResult::Unknown),
        }
        tokio::time::sleep(REGISTRATION).await;
    }
}
