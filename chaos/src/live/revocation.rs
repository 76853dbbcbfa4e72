//! Measures the cost of a revocation: the time to its acknowledgement beside that of a plain write, with all nodes
//! running, or with one follower frozen. A follower that wakes immediately gets a check of the session that was ended
//! while it was frozen.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use conclave_client::v1;
use tokio::time::sleep;

use super::{client::BrowserClient, cluster::LiveCluster, traffic::password};
use crate::{history::Seen, random::Random};

/// The measurements.
#[derive(Default)]
pub struct Costs {
    /// The first revocation after the founding election, which waits for all leases that an earlier leader may have
    /// granted.
    pub first: Vec<Duration>,
    /// Plain writes, each at the same node as the revocation after it.
    pub writes: Vec<Duration>,
    pub revocations: Vec<Duration>,
    /// Sessions that a follower still accepted after they had been ended. Must be 0.
    pub stale: u64,
}

const WAIT_LIMIT: Duration = Duration::from_secs(10);
/// The pause between two runs: leases are renewed by then.
const CALM: Duration = Duration::from_millis(500);
/// The renewal interval: a follower may be frozen at any point between two renewals.
const RENEWAL_MS: u64 = 400;
const USER: &str = "revoked";

pub(super) async fn measure(frozen: bool, runs: u32, cluster: &Arc<LiveCluster>) -> anyhow::Result<Costs> {
    let api = cluster.api(WAIT_LIMIT)?;
    let request =
        v1::CreateUserRequest { username: USER.into(), password: password(USER), ..Default::default() };
    api.users().create(request).await?;
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(WAIT_LIMIT);
    let http = http.build()?;
    let (mut costs, mut random) = (Costs::default(), Random::new(1));
    let began = Instant::now();
    api.sessions()
        .revoke_of_user(v1::RevokeUserSessionsRequest { user: USER.into(), app_passwords: false })
        .await?;
    costs.first.push(began.elapsed());
    for run in 0..runs {
        let leader = cluster.leader().await.context("no leader")?;
        let followers: Vec<u64> = cluster.places().into_iter().filter(|place| *place != leader).collect();
        let (asleep, asked) = match followers.as_slice() {
            [one, other] => {
                if run % 2 == 0 {
                    (*one, *other)
                } else {
                    (*other, *one)
                }
            }
            _ => anyhow::bail!("three nodes are needed"),
        };
        let mut client = BrowserClient::new(http.clone(), USER);
        let url = cluster.url(asked);
        client.sign_in([&url, &url], &password(USER)).await?;
        anyhow::ensure!(
            client.check(&cluster.url(asleep)).await == Seen::Accepted,
            "the new session is not valid"
        );
        if frozen {
            sleep(Duration::from_millis(random.below(RENEWAL_MS))).await;
            cluster.signal(asleep, "-STOP")?;
        }
        let outcome = cost(&cluster.api_of(std::iter::once(asked), WAIT_LIMIT)?, run, &mut costs).await;
        // Sent while it is frozen, and answered when it wakes.
        let at = cluster.url(asleep);
        let woken = async {
            if frozen {
                cluster.signal(asleep, "-CONT")?;
            }
            anyhow::Ok(())
        };
        let (seen, woken) = tokio::join!(client.check(&at), woken);
        outcome?;
        woken?;
        costs.stale += u64::from(seen == Seen::Accepted);
        for place in cluster.places() {
            costs.stale += u64::from(client.check(&cluster.url(place)).await == Seen::Accepted);
            cluster.ready(place).await?;
        }
        sleep(CALM).await;
    }
    Ok(costs)
}

async fn cost(api: &conclave_client::AdminClient, run: u32, costs: &mut Costs) -> anyhow::Result<()> {
    // The connection is open already, as a busy operator's is.
    api.users().get(v1::GetUserRequest { user: USER.into() }).await?;
    let began = Instant::now();
    let request = v1::CreateGroupRequest { name: format!("plain-{run}"), description: String::new() };
    api.groups().create(request).await?;
    costs.writes.push(began.elapsed());
    let began = Instant::now();
    api.sessions()
        .revoke_of_user(v1::RevokeUserSessionsRequest { user: USER.into(), app_passwords: false })
        .await?;
    costs.revocations.push(began.elapsed());
    Ok(())
}
