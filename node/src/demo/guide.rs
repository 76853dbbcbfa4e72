//! The output of the demo: a short guide for users, or exactly one line of JSON for programs.

use std::{io::BufRead as _, time::Duration};

use serde_json::json;
use tokio::sync::mpsc;

use super::{
    DemoOptions,
    children::{Children, News},
    layout::{APP_HOST, Layout},
    seed::DemoSeed,
};

pub(super) fn print(
    options: &DemoOptions,
    layout: &Layout,
    children: &Children,
    seeded: &DemoSeed,
    took: Duration,
) {
    let pids = children.pids();
    if options.json {
        println!("{}", as_json(layout, &pids, seeded));
        return;
    }
    let leader = seeded.leader;
    let pid = pids.get(&leader).copied().unwrap_or_default();
    println!("\n  {} nodes are ready after {:.1} s.\n", layout.nodes, took.as_secs_f64());
    println!("  Open     {}", layout.front_url());
    println!("  Sign in  {}  {}", seeded.username, seeded.password);
    println!("  Then     {}   (an application behind forward-auth)\n", layout.app_url());
    println!("  Every click goes to the next node. The leader is node {leader}, pid {pid}:");
    println!("      kill -9 {pid}      and keep clicking\n");
    println!("  Admin    conclave user list --api http://{} --token {}", layout.api_addr(1), seeded.token);
    println!("  Logs     {}", layout.log_file(1).display());
    println!("  Stop     Ctrl-C\n");
}

fn as_json(
    layout: &Layout,
    pids: &std::collections::BTreeMap<u64, u32>,
    seeded: &DemoSeed,
) -> serde_json::Value {
    let nodes: Vec<_> = layout
        .ids()
        .map(|id| {
            json!({
                "id": id,
                "pid": pids.get(&id),
                "http": format!("http://{}", layout.http_addr(id)),
                "api": format!("http://{}", layout.api_addr(id)),
                "cluster": layout.cluster_addr(id).to_string(),
                "data_dir": layout.data_dir(id),
            })
        })
        .collect();
    json!({
        "base_port": layout.base_port(),
        "front": layout.front_url(),
        "issuer": layout.front_url(),
        "nodes": nodes,
        "leader": seeded.leader,
        "admin": { "username": seeded.username, "password": seeded.password, "token": seeded.token },
        "client": {
            "client_id": seeded.client_id,
            "client_secret": seeded.client_secret,
            "redirect_uri": seeded.redirect_uri,
        },
        "app": { "host": APP_HOST, "url": layout.app_url() },
    })
}

/// Prints an event of a node: beside the guide, or on standard error when standard output is for programs.
pub(super) fn tell(options: &DemoOptions, news: &News) {
    let line = match news {
        News::Died { node, pid, status } if options.restart => {
            format!("node {node} (pid {pid}) ended: {status}; starting it again")
        }
        News::Died { node, pid, status } => {
            format!("node {node} (pid {pid}) ended: {status}. Press Enter to start it again.")
        }
        News::Started { node, pid } => format!("node {node} runs as pid {pid}"),
    };
    if options.json { eprintln!("  {line}") } else { println!("  {line}") }
}

/// Receives a message for each line on standard input: the Enter key on a terminal.
pub(super) fn enters() -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::channel(1);
    // A separate thread: reading a terminal cannot be cancelled, and the process ends without waiting for it.
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if line.is_err() || sender.blocking_send(()).is_err() {
                return;
            }
        }
    });
    receiver
}
