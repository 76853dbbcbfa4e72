//! Metrics of a node: all metric names, in this file alone, and their text format.
//!
//! They are read from the node's status at each scrape; the work itself updates no counters. Labels contain values that
//! the node chose, never values that a client sent.

use std::sync::atomic::AtomicU64;

use conclave_proto::cluster::v1::{ArchiveStatus, NodeStatus};
use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};

use conclave_http::denial;

/// `Content-Type` of the text from [`exposition`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The values that are not part of the node's status.
#[derive(Clone, Copy, Debug)]
pub struct MetricsSample {
    /// Unix milliseconds.
    pub now_ms: u64,
    pub users: usize,
    /// Back-channel logouts that clients have not accepted yet.
    pub logout_notices: usize,
}

/// The status as text (OpenMetrics 1.0).
pub fn exposition(status: &NodeStatus, sample: MetricsSample) -> String {
    let mut page = Page(Registry::with_prefix("conclave"));
    page.about(status);
    page.whole("users", "Users in the replicated state", sample.users as u64);
    page.whole(
        "logout_notices_waiting",
        "Back-channel logouts that clients have not accepted yet",
        sample.logout_notices as u64,
    );
    page.refusals();
    if let Some(archive) = &status.archive {
        page.archive(archive, sample.now_ms);
    }
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = text::encode(&mut out, &page.0);
    out
}

struct Page(Registry);

impl Page {
    fn about(&mut self, status: &NodeStatus) {
        let labels = [("version", status.version.clone()), ("node", status.node_id.to_string())];
        self.0.register("build", "Program version and node number", Info::new(labels));
        self.truth("ready", "Whether this node can serve", status.ready);
        self.truth("leads", "Whether this node is the leader", status.role == "leader");
        self.whole("leader", "Node number of the leader known to this node; 0 = none", status.leader_id);
        self.whole("term", "Raft term", status.term);
        self.whole("log_last_index", "Index of the last log entry on this node", status.last_log_index);
        self.whole(
            "applied_index",
            "Index of the last log entry applied to the state of this node",
            status.applied_index,
        );
        self.whole("snapshot_index", "Index of the newest snapshot on this node", status.snapshot_index);
        self.bytes("log", "Size of the log on disk", status.log_bytes);
        self.bytes("disk_free", "Free space on the disk of the data directory", status.disk_free_bytes);
        self.seconds("uptime", "Time since this node started", status.uptime_ms);
        let clock = status.clock.clone().unwrap_or_default();
        self.signed_seconds(
            "clock_offset",
            "The wall clock of this machine minus the cluster clock",
            clock.wall_offset_us,
        );
        self.seconds("log_time_ahead", "Lead of log time over the cluster clock", clock.log_ahead_ms);
        self.truth(
            "clock_agreed",
            "Whether a quorum agrees on the cluster clock",
            clock.standing == "agreed",
        );
        self.whole("clock_steps", "Number of steps of the cluster clock", clock.steps);
        self.seconds(
            "lease_left",
            "Time for which checks on this node need no other node; 0 = no lease",
            status.lease_left_ms,
        );
    }

    fn archive(&mut self, archive: &ArchiveStatus, now_ms: u64) {
        let fails = !archive.last_error.is_empty();
        self.truth("archive_ships", "Whether this node ships to the archive", archive.ships);
        self.truth("archive_fails", "Whether the last attempt to archive failed", fails);
        self.whole(
            "archive_behind_entries",
            "Log entries that are not in the archive yet",
            archive.behind_entries,
        );
        self.seconds(
            "archive_behind",
            "Time for which the oldest of those entries has waited",
            archive.behind_ms,
        );
        self.truth(
            "drill_fails",
            "Whether the last test restore of the archive failed",
            !archive.last_drill_error.is_empty(),
        );
        self.age(
            "last_archived_snapshot_age",
            "Time since the newest snapshot in the archive",
            archive.last_snapshot_at_ms,
            now_ms,
        );
        self.age(
            "last_verified_snapshot_age",
            "Time since the last successful test restore of the archive on this node, including a sign-in",
            archive.last_verified_at_ms,
            now_ms,
        );
    }

    /// Both labels are constants of the code, so there are as many series as the code has kinds of refusals.
    fn refusals(&mut self) {
        let counters = Family::<[(&'static str, &'static str); 2], Counter>::default();
        for ((kind, reason), count) in denial::counts() {
            counters.get_or_create(&[("kind", kind), ("reason", reason)]).inc_by(count);
        }
        self.0.register("refusals", "Requests that this node refused since it started", counters);
    }

    fn whole(&mut self, name: &str, help: &str, value: u64) {
        self.0.register(name, help, gauge(value));
    }

    fn truth(&mut self, name: &str, help: &str, value: bool) {
        self.whole(name, help, value.into());
    }

    fn bytes(&mut self, name: &str, help: &str, value: u64) {
        self.0.register_with_unit(name, help, Unit::Bytes, gauge(value));
    }

    fn seconds(&mut self, name: &str, help: &str, ms: u64) {
        let gauge = Gauge::<f64, AtomicU64>::default();
        gauge.set(std::time::Duration::from_millis(ms).as_secs_f64());
        self.0.register_with_unit(name, help, Unit::Seconds, gauge);
    }

    fn signed_seconds(&mut self, name: &str, help: &str, micros: i64) {
        let gauge = Gauge::<f64, AtomicU64>::default();
        let size = std::time::Duration::from_micros(micros.unsigned_abs()).as_secs_f64();
        gauge.set(if micros < 0 { -size } else { size });
        self.0.register_with_unit(name, help, Unit::Seconds, gauge);
    }

    /// An event that never happened has no age: the metric is absent, so that an alert on its absence fires.
    fn age(&mut self, name: &str, help: &str, at_ms: u64, now_ms: u64) {
        if at_ms != 0 {
            self.seconds(name, help, now_ms.saturating_sub(at_ms));
        }
    }
}

fn gauge(value: u64) -> Gauge {
    let gauge = Gauge::default();
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    gauge
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(archive: Option<ArchiveStatus>) -> String {
        let status = NodeStatus {
            node_id: 2,
            version: "1.2.3".into(),
            role: "leader".into(),
            applied_index: 70,
            lease_left_ms: 1_500,
            archive,
            ..NodeStatus::default()
        };
        exposition(&status, MetricsSample { now_ms: 10_000, users: 3, logout_notices: 2 })
    }

    #[test]
    fn a_node_tells_its_numbers() {
        let text = said(None);
        for line in [
            "conclave_build_info{version=\"1.2.3\",node=\"2\"} 1",
            "conclave_leads 1",
            "conclave_ready 0",
            "conclave_applied_index 70",
            "conclave_lease_left_seconds 1.5",
            "conclave_users 3",
            "conclave_logout_notices_waiting 2",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
        }
        assert!(!text.contains("archive"), "there is none: {text}");
    }

    #[test]
    fn what_was_never_tried_has_no_age() {
        let never = said(Some(ArchiveStatus::default()));
        assert!(never.contains("conclave_drill_fails 0") && !never.contains("verified"), "{never}");
        let once = said(Some(ArchiveStatus {
            last_verified_at_ms: 4_000,
            last_drill_error: "nobody could sign in".into(),
            ..ArchiveStatus::default()
        }));
        assert!(once.contains("conclave_last_verified_snapshot_age_seconds 6.0\n"), "{once}");
        assert!(once.contains("conclave_drill_fails 1\n"), "{once}");
    }
}
