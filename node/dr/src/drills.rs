//! Drills on schedule: the archive is restored from time to time in a separate process, so that the first restore is
//! not the emergency. One node of the cluster does it, and not the leader if there is another node. The result is in
//! the archive's status.

use std::{path::PathBuf, process::Stdio, time::Duration};

use serde::Deserialize;
use tokio::{
    io::AsyncReadExt as _,
    process::{Child, Command},
    time::{sleep, timeout},
};

use conclave_base::runtime::Runtime;
use conclave_cluster::Cluster;

/// The interval at which a node checks if a drill is due.
const PERIOD: Duration = Duration::from_mins(1);
/// The time after a start before the first drill: a machine that has just started has other work.
const FIRST_AFTER: Duration = Duration::from_mins(10);
/// The longest drill: a million users on a slow machine, several times over.
const LIMIT: Duration = Duration::from_mins(30);
/// The longest report that is read.
const MAX_REPORT_BYTES: u64 = 64 * 1024;

/// The settings of scheduled drills.
pub struct Drills {
    pub cluster: Cluster,
    /// The time between two drills.
    pub every: Duration,
    /// The configuration file of the other process; it also gets this process's environment.
    pub config: Option<PathBuf>,
    pub runtime: Runtime,
}

/// The output of a drill.
#[derive(Deserialize)]
struct Report {
    index: u64,
}

impl Drills {
    /// Runs until the task is dropped.
    pub async fn keep(self) {
        let begun = self.runtime.clock.monotonic();
        let mut tried: Option<Duration> = None;
        loop {
            sleep(PERIOD).await;
            let now = self.runtime.clock.monotonic();
            let rested = now.saturating_sub(begun) >= FIRST_AFTER;
            let tried_lately = tried.is_some_and(|at| now.saturating_sub(at) < self.every);
            if rested && !tried_lately && self.is_ours_and_due().await {
                tried = Some(now);
                self.hold().await;
            }
        }
    }

    /// True if no node has passed a drill lately and this node is to run it: the answering node with the highest number
    /// that is not the leader, or this node if it is alone.
    async fn is_ours_and_due(&self) -> bool {
        let members = self.cluster.member_statuses().await;
        let answering = members.iter().filter_map(|member| Some((member.node, member.status.as_ref().ok()?)));
        let (mut passed_at, mut highest) = (0, None);
        for (node, status) in answering {
            passed_at =
                passed_at.max(status.archive.as_ref().map_or(0, |archive| archive.last_verified_at_ms));
            if Some(node) != self.cluster.leader_id() {
                highest = highest.max(Some(node));
            }
        }
        let age = Duration::from_millis(self.runtime.clock.now_ms().saturating_sub(passed_at));
        age >= self.every && highest.unwrap_or(self.cluster.node_id()) == self.cluster.node_id()
    }

    async fn hold(&self) {
        let now = self.runtime.clock.now_ms();
        match timeout(LIMIT, self.drill())
            .await
            .unwrap_or_else(|_| Err("it took longer than half an hour".into()))
        {
            Ok(report) => {
                tracing::info!(
                    index = report.index,
                    "a drill restored the archive, and its test user signed in"
                );
                self.cluster.report_drill(Some(now), String::new());
            }
            Err(error) => {
                tracing::error!("a drill could not restore the archive: {error}");
                self.cluster.report_drill(None, error);
            }
        }
    }

    async fn drill(&self) -> Result<Report, String> {
        let program = std::env::current_exe().map_err(|e| e.to_string())?;
        let mut command = Command::new(program);
        command.args(["snapshot", "drill", "--archive", "-o", "json"]);
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        with_scratch(command).await
    }
}

/// Runs the command with a temporary directory that is removed afterwards. A drill that is killed cannot remove what it
/// restored, nor the secret that it was restored with.
async fn with_scratch(mut command: Command) -> Result<Report, String> {
    let scratch = tempfile::Builder::new().prefix("conclave-drills-").tempdir().map_err(|e| e.to_string())?;
    command.env("TMPDIR", scratch.path());
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    report(child.spawn().map_err(|e| e.to_string())?).await
}

async fn report(mut child: Child) -> Result<Report, String> {
    let (mut said, mut failed) = (Vec::new(), Vec::new());
    if let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) {
        let (mut out, mut err) = (out.take(MAX_REPORT_BYTES), err.take(MAX_REPORT_BYTES));
        let read = tokio::join!(out.read_to_end(&mut said), err.read_to_end(&mut failed));
        read.0.and(read.1).map_err(|e| e.to_string())?;
    }
    let status = child.wait().await.map_err(|e| e.to_string())?;
    if status.success() {
        return serde_json::from_slice(&said).map_err(|e| format!("its report cannot be read: {e}"));
    }
    let text = String::from_utf8_lossy(&failed);
    Err(text.trim().trim_start_matches("conclave: ").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_drill_wrote_goes_with_it_when_it_is_given_up() {
        let told = tempfile::tempdir().unwrap();
        let file = told.path().join("where");
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg("touch $TMPDIR/cluster.secret; echo $TMPDIR >$0.new; mv $0.new $0; exec sleep 600");
        command.arg(&file);
        let drill = tokio::spawn(with_scratch(command));
        while !file.exists() {
            tokio::task::yield_now().await;
        }
        let place = PathBuf::from(std::fs::read_to_string(&file).unwrap().trim());
        assert!(place.join("cluster.secret").exists());
        drill.abort();
        assert!(drill.await.err().is_some_and(|e| e.is_cancelled()));
        assert!(!place.exists());
    }
}
