//! Limits requests to the leader about hosts for which this node knows no application.
//!
//! Only a node whose lease has expired sends such requests; with a lease its own state is sufficient. The host names
//! come from clients, in any number, and each request is a round through a quorum. A host beyond the limit is not
//! denied: the check's response is that this node cannot decide now.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Maximum number of requests about one host per second: a new application is found by the first, or by the second once
/// this node has caught up.
const MAX_A_HOST: u32 = 2;
/// Maximum number of requests per second in total, far below the capacity of a quorum. It also bounds the number of
/// hosts remembered.
const MAX_ALTOGETHER: u32 = 64;

/// The requests in the current second.
#[derive(Debug, Default)]
pub(crate) struct Questions(Mutex<Second>);

#[derive(Debug, Default)]
struct Second {
    number: u64,
    lookups: u32,
    hosts: BTreeMap<String, u32>,
}

impl Questions {
    /// True if one more request may be sent; counts it if so. `now` is monotonic.
    pub(crate) fn may_ask(&self, host: &str, now: Duration) -> bool {
        let mut second = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if second.number != now.as_secs() {
            *second = Second { number: now.as_secs(), ..Second::default() };
        }
        if second.lookups >= MAX_ALTOGETHER
            || second.hosts.get(host).is_some_and(|lookups| *lookups >= MAX_A_HOST)
        {
            return false;
        }
        second.lookups += 1;
        *second.hosts.entry(host.to_owned()).or_default() += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_unknown_hosts_asks_so_often_in_a_second_and_no_more() {
        let questions = Questions::default();
        let ask = |host: &str, ms| questions.may_ask(host, Duration::from_millis(ms));
        assert_eq!((0..10).filter(|_| ask("wiki.test", 100)).count(), 2);
        assert_eq!((0..1_000).filter(|n| ask(&format!("h{n}.test"), 200)).count(), 62);
        assert!(!ask("other.test", 999));
        assert!(ask("other.test", 1_000) && ask("wiki.test", 1_000), "the next second has its own");
        assert!(questions.0.lock().unwrap().hosts.len() <= 64);
    }
}
