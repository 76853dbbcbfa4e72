//! A dead peer causes little load.

use std::time::Duration;

use tokio::{net::TcpListener, time::timeout};

use super::harness::{TestCluster, create};

/// The time for which dials are counted.
const WINDOW: Duration = Duration::from_secs(2);
/// Not counted against the leader: the first dials of its channels, until they slow down.
const AT_FIRST: usize = 40;
/// Dials a second, over all channels: three times the twenty-four that a quiet machine shows. Without the backoff there
/// are a thousand.
const A_SECOND: usize = 80;

/// openraft waits its backoff out inside the stream of requests; dialling before that was polled skipped the wait, and
/// a dead follower cost a whole core.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_follower_is_dialled_at_the_backoffs_pace() {
    let mut cluster = TestCluster::start(3).await;
    let dead = cluster.followers().await[0];
    let addr = cluster.addr(dead).to_owned();
    cluster.kill(dead).await;
    // In its place, a listener that counts and closes connections.
    let port = TcpListener::bind(&addr).await.unwrap();
    let leader = cluster.node(cluster.leader().await).clone();
    let mut dials = 0;
    let writing = tokio::spawn(async move {
        for n in 0.. {
            create(&leader, n).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    let counting = async {
        loop {
            drop(port.accept().await.unwrap());
            dials += 1;
        }
    };
    let _: Result<(), _> = timeout(WINDOW, counting).await;
    writing.abort();
    println!("{dials} dials in {WINDOW:?}");
    let seconds = usize::try_from(WINDOW.as_secs()).unwrap();
    assert!(dials > 0, "a peer that comes back must be found");
    assert!(dials < AT_FIRST + seconds * A_SECOND, "{dials} dials in {WINDOW:?}");
}
