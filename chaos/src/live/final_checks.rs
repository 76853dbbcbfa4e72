//! Final checks after the faults: every session is, at every node, as it was last acknowledged; every user whose
//! creation was acknowledged exists, at every node; and the newest refresh tokens of sessions that were not ended
//! rotate once more.

use std::{collections::BTreeSet, time::Duration};

use conclave_client::{all_pages, v1};
use tokio::{task::JoinSet, time::sleep};

use super::{client::BrowserClient, cluster::LiveCluster, traffic::browser};
use crate::{
    history::{History, Seen},
    promise::{Broken, Promise},
};

/// Attempts at a node that does not respond: everything works by now, but a machine may be slow.
const ATTEMPTS: u32 = 5;
const AGAIN: Duration = Duration::from_millis(200);
/// Time limit for a node to list its users.
const LISTING: Duration = Duration::from_secs(10);

/// A session and the client who holds its cookies.
pub(super) type HeldSession = (u64, BrowserClient);

/// Each acknowledged result that does not hold.
pub(super) async fn judge(cluster: &LiveCluster, history: &History, held: &[HeldSession]) -> Vec<Broken> {
    let mut broken = sessions(cluster, history, held).await;
    broken.extend(users(cluster, history).await);
    broken.extend(refresh_tokens(cluster, history).await);
    broken
}

/// Checks every session at every node, all nodes at once.
async fn sessions(cluster: &LiveCluster, history: &History, held: &[HeldSession]) -> Vec<Broken> {
    let mut asking = JoinSet::new();
    for place in cluster.places() {
        let (url, held) = (cluster.url(place), held.to_vec());
        asking.spawn(async move {
            let mut seen = Vec::new();
            for (session, client) in held {
                seen.push((session, place, seen_at_last(&client, &url).await));
            }
            seen
        });
    }
    let mut broken = Vec::new();
    for (session, place, seen) in asking.join_all().await.into_iter().flatten() {
        let how = match (history.fate(session), seen) {
            (Some(true), Seen::Denied) => Promise::AcknowledgedStays
                .broken(format!("session {session}, which was not ended, is unknown to node {place}")),
            (Some(false), Seen::Accepted) => Promise::RevokedAtOnce.broken(format!(
                "session {session}, which was ended, is accepted by node {place} at the end"
            )),
            (_, Seen::Unavailable) => {
                Promise::WorksAgain.broken(format!("node {place} does not answer for session {session}"))
            }
            _ => {
                history.count("sessions as they must be at the end");
                continue;
            }
        };
        broken.push(how);
    }
    broken
}

async fn seen_at_last(client: &BrowserClient, url: &str) -> Seen {
    for _ in 0..ATTEMPTS {
        let seen = client.check(url).await;
        if seen != Seen::Unavailable {
            return seen;
        }
        sleep(AGAIN).await;
    }
    Seen::Unavailable
}

async fn users(cluster: &LiveCluster, history: &History) -> Vec<Broken> {
    let acknowledged = history.users();
    let mut broken = Vec::new();
    for place in cluster.places() {
        let known = match names(cluster, place).await {
            Ok(known) => known,
            Err(error) => {
                broken.push(Promise::WorksAgain.broken(format!("node {place} lists no users: {error:#}")));
                continue;
            }
        };
        for name in &acknowledged {
            if known.contains(name) {
                history.count("users as they must be at the end");
            } else {
                let how = format!("user {name}, whose creation was acknowledged, is unknown to node {place}");
                broken.push(Promise::AcknowledgedStays.broken(how));
            }
        }
    }
    broken
}

async fn names(cluster: &LiveCluster, place: u64) -> anyhow::Result<BTreeSet<String>> {
    let api = cluster.api_of(place..=place, LISTING)?;
    let users = all_pages(async |page| {
        let answer = api.users().list(v1::ListUsersRequest { page: Some(page) }).await?;
        Ok((answer.users, answer.next_page_token))
    });
    Ok(users.await?.into_iter().map(|user| user.username).collect())
}

async fn refresh_tokens(cluster: &LiveCluster, history: &History) -> Vec<Broken> {
    let Ok(http) = browser() else { return vec![Promise::RunsOn.broken("no browser")] };
    let client = BrowserClient::new(http, "");
    let mut broken = Vec::new();
    let places = cluster.places();
    for (session, token) in history.must_live() {
        let Some(token) = token else { continue };
        let place =
            places.get(usize::try_from(session).unwrap_or(0) % places.len().max(1)).copied().unwrap_or(1);
        let how = match client.refresh(&cluster.url(place), &token).await {
            Ok(Some(_)) => {
                history.count("refresh tokens as they must be at the end");
                continue;
            }
            Ok(None) => format!("the refresh token of session {session} was acknowledged and is lost"),
            Err(error) => format!("the refresh token of session {session} cannot be used: {error:#}"),
        };
        broken.push(Promise::AcknowledgedStays.broken(how));
    }
    broken
}
