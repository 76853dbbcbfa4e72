//! All nodes die at once: what was acknowledged is there again.

use super::{
    relying_party::{Way, refresh, sign_in},
    world::{Demo, kill_9},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_is_killed_at_once_and_nothing_acknowledged_is_lost() {
    let demo = Demo::start(21_400, &["--restart"]);
    let mut people = Vec::new();
    for _ in 0..10 {
        people.push(sign_in(&demo, Way::EachToTheNextNode).await.unwrap());
    }
    let before = demo.digests().await;
    let pids: Vec<u32> = demo.cluster.nodes.iter().map(|node| demo.pid_of(node.id).unwrap()).collect();
    pids.into_iter().for_each(kill_9);

    demo.all_ready().await;
    let after = demo.digests().await;
    assert!(after.iter().all(|d| *d == after[0]), "the nodes differ after the restart: {after:?}");
    assert!(after[0].0 > before[0].0, "the log did not go on from where it was: {before:?} {after:?}");
    for person in &people {
        let reply =
            person.browser.get(demo.at_next_node(&format!("{}/", demo.cluster.front))).send().await.unwrap();
        assert_eq!(reply.status(), 200, "a session is gone");
        refresh(&demo, Way::EachToTheNextNode, &person.refresh_token).await.expect("a refresh token is gone");
    }
    let again =
        sign_in(&demo, Way::EachToTheNextNode).await.expect("the user and the client are still there");
    assert_eq!(again.subject, people[0].subject);
}
