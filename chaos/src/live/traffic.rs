//! Visitors at all nodes, and an operator who revokes. Everything they do stands in the history.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use conclave_client::v1;
use tokio::task::JoinHandle;

use crate::{history::History, random::Random};

use super::{cluster::Cluster, visitor::Visitor};

/// People who sign in, each with one session at a time.
const PEOPLE: usize = 8;
/// The pause of a visitor between two actions: the machine must also run the cluster.
const PAUSE: Duration = Duration::from_millis(4);
/// How long a visitor waits for an answer. Longer than any write is held.
const PATIENCE: Duration = Duration::from_secs(12);
/// Actions of one session before its person is revoked or leaves it behind.
const ACTIONS: u64 = 120;

pub struct Traffic {
    over: Arc<AtomicBool>,
    people: Vec<JoinHandle<()>>,
}

impl Traffic {
    pub async fn stop(self) {
        self.over.store(true, Ordering::Relaxed);
        for person in self.people {
            // One that panicked has said so.
            let _ = person.await;
        }
    }
}

struct Person {
    user: String,
    cluster: Arc<Cluster>,
    history: Arc<History>,
    random: Random,
    http: reqwest::Client,
    over: Arc<AtomicBool>,
}

pub fn password(user: &str) -> String {
    format!("{user} has a long password")
}

pub async fn start(cluster: &Arc<Cluster>, history: &Arc<History>, seed: u64) -> anyhow::Result<Traffic> {
    let api = cluster.api(PATIENCE)?;
    let over = Arc::new(AtomicBool::new(false));
    let mut people = Vec::new();
    for number in 0..PEOPLE {
        let user = format!("person{number}");
        let order =
            v1::CreateUserRequest { username: user.clone(), password: password(&user), ..Default::default() };
        api.users().create(order).await?;
        let person = Person {
            user,
            cluster: Arc::clone(cluster),
            history: Arc::clone(history),
            random: Random::new(seed.wrapping_mul(1_000).wrapping_add(number as u64)),
            http: browser()?,
            over: Arc::clone(&over),
        };
        people.push(tokio::spawn(person.live()));
    }
    Ok(Traffic { over, people })
}

fn browser() -> anyhow::Result<reqwest::Client> {
    let builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    Ok(builder.timeout(PATIENCE).connect_timeout(Duration::from_secs(1)).build()?)
}

impl Person {
    async fn live(mut self) {
        while !self.over.load(Ordering::Relaxed) {
            let Some((visitor, session)) = self.sign_in().await else { continue };
            let actions = 20 + self.random.below(ACTIONS);
            let revoke_at = self.random.below(actions * 2);
            // Two windows of one browser, so that checks go on while a revocation is on its way.
            let mut token = None;
            for action in 0..actions {
                if self.over.load(Ordering::Relaxed) {
                    break;
                }
                if action == revoke_at {
                    self.revoke(&visitor, session).await;
                    break;
                }
                if self.random.below(12) == 0 {
                    token = self.use_grant(&visitor, session, token).await;
                } else {
                    self.check(&visitor, session).await;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn sign_in(&mut self) -> Option<(Visitor, u64)> {
        let (first, second) = (self.node().1, self.node().1);
        let mut visitor = Visitor::new(self.http.clone());
        if visitor.sign_in([&first, &second], &self.user, &password(&self.user)).await.is_err() {
            self.history.count("logins failed or unanswered");
            tokio::time::sleep(PAUSE * 5).await;
            return None;
        }
        let session = self.history.signed_in(&self.user);
        Some((visitor, session))
    }

    async fn check(&mut self, visitor: &Visitor, session: u64) {
        let (node, url) = self.node();
        let began = self.history.now();
        let seen = visitor.check(&url).await;
        self.history.checked(session, node, began, seen);
    }

    /// A code, redeemed at two nodes at once; later the refresh token of it, rotated.
    async fn use_grant(&mut self, visitor: &Visitor, session: u64, token: Option<String>) -> Option<String> {
        let (one, other) = (self.node().1, self.node().1);
        if let Some(token) = token {
            let Ok(next) = visitor.refresh(&one, &token).await else {
                self.history.count("refreshes unanswered");
                self.history.refresh_token(session, &token, false);
                return None;
            };
            self.history.count("refreshes");
            let next = next?;
            self.history.refresh_token(session, &next, true);
            return Some(next);
        }
        let code = visitor.clone().code(&one).await.ok()?;
        let (first, second) = tokio::join!(visitor.redeem(&one, &code), visitor.redeem(&other, &code));
        let mut token = None;
        for outcome in [first, second] {
            match outcome {
                Ok(Some(refresh)) => {
                    self.history.redeemed(&code);
                    token = Some(refresh);
                }
                Ok(None) => self.history.count("codes refused the second time"),
                Err(_) => self.history.count("redemptions unanswered"),
            }
        }
        // The second redemption has ended the grant (RFC 6749 §4.1.2): its refresh token is not to be used.
        let _ = token;
        let code = visitor.clone().code(&other).await.ok()?;
        let Ok(Some(refresh)) = visitor.redeem(&one, &code).await else { return None };
        self.history.redeemed(&code);
        self.history.refresh_token(session, &refresh, true);
        Some(refresh)
    }

    /// Everything of this person, by an operator at any node; visitors go on meanwhile.
    async fn revoke(&mut self, visitor: &Visitor, session: u64) {
        let (node, _) = self.node();
        let Ok(api) = self.cluster.api_of([node].into_iter().chain(self.cluster.places()), PATIENCE) else {
            return;
        };
        let ended = self.history.revoking(&self.user);
        let began = self.history.now();
        let revoking = async {
            let order = v1::RevokeUserSessionsRequest { user: self.user.clone() };
            let outcome = api.sessions().revoke_of_user(order).await;
            if outcome.is_ok() {
                self.history.revoked(&ended, began);
            } else {
                self.history.count("revocations failed or unknown");
            }
            outcome.is_ok()
        };
        let (cluster, history) = (Arc::clone(&self.cluster), Arc::clone(&self.history));
        let watching = async {
            for turn in 0_usize.. {
                let places = cluster.places();
                let Some(node) = places.get(turn % places.len().max(1)).copied() else { continue };
                let began = self.history.now();
                let seen = visitor.check(&cluster.url(node)).await;
                history.checked(session, node, began, seen);
                tokio::time::sleep(PAUSE / 4).await;
            }
        };
        tokio::pin!(watching);
        let acknowledged = tokio::select! {
            acknowledged = revoking => acknowledged,
            () = &mut watching => false,
        };
        if acknowledged {
            // The moment that counts: right after it, at every node, several times.
            for node in [self.cluster.places(), self.cluster.places()].concat() {
                let began = self.history.now();
                let seen = visitor.check(&self.cluster.url(node)).await;
                self.history.checked(session, node, began, seen);
            }
        }
    }

    fn node(&mut self) -> (u64, String) {
        let node = self.random.pick(&self.cluster.places()).copied().unwrap_or(1);
        (node, self.cluster.url(node))
    }
}

/// What was acknowledged is still there: the newest refresh tokens of sessions that nobody ended rotate once more.
pub async fn nothing_lost(cluster: &Cluster, history: &History) -> Vec<String> {
    let Ok(http) = browser() else { return vec!["no browser".into()] };
    let visitor = Visitor::new(http);
    let mut lost = Vec::new();
    let places = cluster.places();
    for (session, token) in history.must_live() {
        let Some(token) = token else { continue };
        let place =
            places.get(usize::try_from(session).unwrap_or(0) % places.len().max(1)).copied().unwrap_or(1);
        match visitor.refresh(&cluster.url(place), &token).await {
            Ok(Some(_)) => history.count("refresh tokens found again at the end"),
            Ok(None) => {
                lost.push(format!("the refresh token of session {session} was acknowledged and is gone"))
            }
            Err(error) => {
                lost.push(format!("the refresh token of session {session} cannot be used: {error:#}"))
            }
        }
    }
    lost
}
