//! How often the leader is asked about hosts that this node knows no application of.
//!
//! Only a node whose lease is over asks at all; one with a lease knows. The names come from strangers, as many as they
//! like, and each question is a round through a quorum. Who is not asked about is not denied either: the check is
//! answered that this node cannot tell now.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Questions about one host in a second: an application that was just made is found by the first or, once this node has
/// caught up, by the second.
const MAX_A_HOST: u32 = 2;
/// Questions altogether in a second, so many fewer than a quorum answers that they are not felt; and so many hosts are
/// remembered.
const MAX_ALTOGETHER: u32 = 64;

/// What was asked in the present second.
#[derive(Debug, Default)]
pub struct Questions(Mutex<Second>);

#[derive(Debug, Default)]
struct Second {
    number: u64,
    asked: u32,
    hosts: BTreeMap<String, u32>,
}

impl Questions {
    /// Whether one more may be asked; counted if so. `now` is monotonic.
    pub fn may_ask(&self, host: &str, now: Duration) -> bool {
        let mut second = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if second.number != now.as_secs() {
            *second = Second { number: now.as_secs(), ..Second::default() };
        }
        if second.asked >= MAX_ALTOGETHER || second.hosts.get(host).is_some_and(|asked| *asked >= MAX_A_HOST)
        {
            return false;
        }
        second.asked += 1;
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
