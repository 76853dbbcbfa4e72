//! One sign-in is one trace, though it begins at one node, ends at another, and is written by a third.

use std::collections::BTreeSet;

use super::{
    atmosphere_chaos::{Sky, did},
    collector::{Collector, Seen},
    world::browser,
};

/// The spans of a sign-in at the node where it begins, and at the node where it ends.
const AT_THE_START: [&str; 3] = ["atproto.start", "atproto.resolve", "atproto.push"];
const AT_THE_END: [&str; 4] = ["atproto.callback", "atproto.redeem", "atproto.judge", "atproto.revoke"];

fn names(spans: &[Seen], node: u64) -> BTreeSet<&str> {
    let node = node.to_string();
    spans.iter().filter(|seen| seen.node == node).map(|seen| seen.name.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sign_in_that_touches_three_nodes_is_one_trace() {
    let collector = Collector::start().await;
    let sky = Sky::start(false, Some(&collector)).await;
    // Another node resolves a handle that affects access.
    sky.demo.conclave(&[
        "upstream",
        "add",
        "atmosphere",
        "--atmosphere",
        "--admit",
        "listed",
        "--handle",
        "*.corp.test",
    ]);
    let leads = sky.demo.leader().await.expect("a leader");
    let others: Vec<_> = sky.demo.cluster.nodes.iter().filter(|node| node.id != leads).collect();
    let mut traces = BTreeSet::new();
    for n in 0..2 {
        sky.network.account(&did(n), &format!("p{n}.corp.test"));
        let person = browser();
        let (from, to) = (others[n as usize % 2], others[(n as usize + 1) % 2]);
        let query = sky.departs_at(from, &person, &did(n)).await;
        let begun =
            collector.has(|seen| seen.name == "atproto.start" && !traces.contains(&seen.span.trace_id)).await;
        assert_eq!(begun.node, from.id.to_string());
        let back = person.get(format!("{}/atproto/callback?{query}", to.http)).send().await.unwrap();
        assert_eq!(back.status(), 303);

        let trace = begun.span.trace_id.clone();
        let callback =
            collector.has(|seen| seen.name == "atproto.callback" && seen.span.trace_id == trace).await;
        assert_eq!(callback.node, to.id.to_string());
        assert_eq!(callback.span.parent_span_id, begun.span.span_id, "it goes on from where it began");
        // The request that carried it has a separate trace, and is linked.
        let linked = &callback.span.links[0].span_id;
        collector.has(|seen| seen.name == "http.request" && seen.span.span_id == *linked).await;

        let of_trace =
            || collector.spans().into_iter().filter(|seen| seen.span.trace_id == trace).collect::<Vec<_>>();
        let looked = |seen: &Seen| seen.name == "cluster.resolve_handle" && seen.span.trace_id == trace;
        let looked = collector.has(looked).await;
        assert_ne!(looked.node, to.id.to_string(), "another node looks at the handle");
        // The state is spent, and the user signed in: two writes, by the leader.
        let writes = || of_trace().iter().filter(|seen| seen.name == "cluster.propose").count();
        collector.has(|_| writes() >= 2).await;
        let spans = of_trace();
        assert!(AT_THE_START.iter().all(|name| names(&spans, from.id).contains(name)), "{spans:?}");
        assert!(AT_THE_END.iter().all(|name| names(&spans, to.id).contains(name)), "{spans:?}");
        assert!(names(&spans, leads).contains("cluster.propose"), "{spans:?}");
        traces.insert(trace);
    }
    assert_eq!(traces.len(), 2, "each sign-in has its own");
}
