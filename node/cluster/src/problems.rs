//! Current and imminent problems of the cluster: the first lines of `cluster status`.

use super::MemberStatus;

/// The problems that the statuses of all members show, the gravest first. Empty if there are none.
pub fn problems(members: &[MemberStatus]) -> Vec<String> {
    let all = members.len();
    let answering = members.iter().filter(|member| member.status.is_ok()).count();
    let quorum = all / 2 + 1;
    let led = |member: &MemberStatus| member.status.as_ref().is_ok_and(|status| status.leader_id != 0);
    let is_led = members.iter().any(led);
    let mut problems = Vec::new();
    if answering < quorum {
        problems.push(format!(
            "NO QUORUM: {answering} of {all} members answer, {quorum} are needed; writes and sign-ins fail"
        ));
    } else if !is_led {
        problems.push(format!("NO LEADER: {answering} of {all} members answer; writes and sign-ins fail"));
    }
    let silent = members.iter().filter_map(|member| Some((member.node, member.status.as_ref().err()?)));
    for (node, why) in silent {
        problems.push(format!("node {node} does not answer: {why}"));
    }
    if answering == quorum && answering < all {
        problems.push("no other member may fail: one more, and writes and sign-ins fail".into());
    }
    for member in members {
        let reasons = member.status.as_ref().map(|status| status.reasons.as_slice()).unwrap_or_default();
        problems.extend(reasons.iter().map(|reason| format!("node {} is not ready: {reason}", member.node)));
    }
    // The clocks concern the whole cluster: one line, whichever member reports them.
    let warned = |member: &MemberStatus| {
        let clock = member.status.as_ref().ok()?.clock.as_ref()?;
        Some(clock.warning.clone()).filter(|warning| !warning.is_empty())
    };
    problems.extend(members.iter().find_map(warned));
    problems
}

#[cfg(test)]
mod tests {
    use conclave_proto::cluster::v1::{ClockStatus, NodeStatus};

    use super::*;

    fn member(node: u64, status: Result<NodeStatus, String>) -> MemberStatus {
        MemberStatus { node, cluster_addr: String::new(), api_url: String::new(), status }
    }

    fn fine(node: u64) -> MemberStatus {
        member(node, Ok(NodeStatus { node_id: node, leader_id: 1, ready: true, ..NodeStatus::default() }))
    }

    #[test]
    fn nothing_is_said_of_a_cluster_that_is_well() {
        assert!(problems(&[fine(1), fine(2), fine(3)]).is_empty());
        assert!(problems(&[fine(1)]).is_empty());
    }

    #[test]
    fn a_step_that_is_about_to_happen_is_said_once() {
        let clock = ClockStatus {
            warning: "most members' clocks were set 60 min ahead".into(),
            ..ClockStatus::default()
        };
        let warned = |node| {
            let status = NodeStatus {
                node_id: node,
                leader_id: 1,
                ready: true,
                clock: Some(clock.clone()),
                ..NodeStatus::default()
            };
            member(node, Ok(status))
        };
        assert_eq!(
            problems(&[warned(1), warned(2), fine(3)]),
            ["most members' clocks were set 60 min ahead"]
        );
    }

    #[test]
    fn the_first_line_says_that_the_quorum_is_lost() {
        let lost = NodeStatus { reasons: vec!["no quorum has answered".into()], ..NodeStatus::default() };
        let gone = |node| member(node, Err("connection refused".into()));
        let said = problems(&[gone(1), member(2, Ok(lost)), gone(3)]);
        assert_eq!(said[0], "NO QUORUM: 1 of 3 members answer, 2 are needed; writes and sign-ins fail");
        assert_eq!(said[1], "node 1 does not answer: connection refused");
        assert_eq!(said[3], "node 2 is not ready: no quorum has answered");
    }

    #[test]
    fn one_dead_of_three_is_a_warning_about_the_next() {
        let said = problems(&[fine(1), fine(2), member(3, Err("connection refused".into()))]);
        assert_eq!(said.len(), 2);
        assert!(said[1].starts_with("no other member may fail"));
    }
}
