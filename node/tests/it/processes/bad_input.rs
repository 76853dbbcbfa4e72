//! Bad input to the process itself: each case ends with a clear error on standard error and an exit code, and loses
//! nothing.

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use super::world::{Demo, kill_9};

/// Runs `conclave serve` with this configuration until it ends by itself.
fn serve(config: &str, dir: &Path) -> Output {
    let file = dir.join("node.toml");
    std::fs::write(&file, config).unwrap();
    Command::new(env!("CARGO_BIN_EXE_conclave"))
        .args(["serve", "--config"])
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn says(output: &Output, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "it started: {text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not said in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

/// Free ports, so that no test connects to another test's node.
fn config(dir: &Path, more: &str) -> String {
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    format!(
        "[node]\ndata_dir = {:?}\n[http]\nlisten = \"{}\"\n[api]\nlisten = \"{}\"\n[cluster]\nlisten = \"{}\"\n{more}",
        dir.join("data"),
        free(),
        free(),
        free(),
    )
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_bad_configuration_is_refused_by_the_path_of_the_setting() {
    let dir = tempfile::tempdir().unwrap();
    for (more, words) in [
        ("peers = [\"2@\"]", &["cluster.peers", "id@host:port"][..]),
        ("peers = [\"2@127.0.0.1:1\"]", &["cluster.peers", "this node"]),
        ("nonsense = 1", &["nonsense"]),
        ("[login]\nsession_ttl = \"soon\"", &["login.session_ttl"]),
        ("[tokens]\naccess_ttl = \"9h1\"", &["tokens.access_ttl"]),
        ("secret = \"short\"", &["cluster.secret"]),
    ] {
        says(&serve(&config(dir.path(), more), dir.path()), words);
    }
    says(&serve("not toml at all [", dir.path()), &["node.toml"]);
    let absent = Command::new(env!("CARGO_BIN_EXE_conclave"))
        .args(["serve", "--config", "/nowhere.toml"])
        .output()
        .unwrap();
    says(&absent, &["/nowhere.toml"]);
    assert!(!dir.path().join("data").exists(), "nothing was written");
}

#[test]
fn a_port_that_is_taken_is_named_with_its_setting() {
    let dir = tempfile::tempdir().unwrap();
    for setting in ["http", "api", "cluster"] {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let config = config(dir.path(), "");
        let old = config
            .split(&format!("[{setting}]\nlisten = \""))
            .nth(1)
            .unwrap()
            .split('"')
            .next()
            .unwrap()
            .to_owned();
        let output = serve(&config.replace(&old, &format!("127.0.0.1:{port}")), dir.path());
        says(&output, &[&format!("{setting}.listen"), &format!("port {port}"), "already taken"]);
    }
}

#[test]
fn a_data_directory_in_use_or_not_ours_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("first.toml");
    std::fs::write(&file, config(dir.path(), "")).unwrap();
    let mut first = Command::new(env!("CARGO_BIN_EXE_conclave"));
    first
        .args(["serve", "--config"])
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let first = Running(first.spawn().unwrap());
    let identity = dir.path().join("data/identity");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !identity.exists() {
        assert!(std::time::Instant::now() < deadline, "the first node does not start");
        std::thread::yield_now();
    }
    says(&serve(&config(dir.path(), ""), dir.path()), &["in use", &first.0.id().to_string()]);
    drop(first);

    let other = tempfile::tempdir().unwrap();
    std::fs::create_dir(other.path().join("data")).unwrap();
    std::fs::write(other.path().join("data/thesis.tex"), "years of work").unwrap();
    says(&serve(&config(other.path(), ""), other.path()), &["thesis.tex"]);
    assert_eq!(std::fs::read_to_string(other.path().join("data/thesis.tex")).unwrap(), "years of work");
}

#[test]
fn another_secret_or_node_number_does_not_open_a_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    let text = config(dir.path(), "");
    let file = dir.path().join("node.toml");
    std::fs::write(&file, &text).unwrap();
    let spawn = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_conclave"));
        command
            .args(["serve", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Running(command.spawn().unwrap())
    };
    let first = spawn();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !dir.path().join("data/identity").exists() {
        assert!(std::time::Instant::now() < deadline, "the node does not start");
        std::thread::yield_now();
    }
    drop(first);
    let secret = format!("secret = \"{}\"\n", "0123456789abcdef".repeat(4));
    says(&serve(&format!("{text}{secret}"), dir.path()), &["another cluster secret"]);
    says(&serve(&text.replace("[node]\n", "[node]\nid = 7\n"), dir.path()), &["node 1", "node 7"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_without_a_quorum_certainly_did_not_happen_and_says_so() {
    let demo = Demo::start(&[]);
    // The survivor must not be the leader: a leader that has just lost its followers cannot know the outcome yet, and
    // would report that.
    let leader = demo.leader().await.unwrap();
    let survivor = demo.cluster.nodes.iter().find(|node| node.id != leader).unwrap();
    for node in demo.cluster.nodes.iter().filter(|node| node.id != survivor.id) {
        kill_9(demo.pid_of(node.id).unwrap());
    }
    let output = Command::new(env!("CARGO_BIN_EXE_conclave"))
        .args(["user", "create", "nobody", "--no-password"])
        .env("CONCLAVE_API", &survivor.api)
        .env("CONCLAVE_TOKEN", &demo.cluster.admin.token)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{text}");
    assert!(text.contains("no leader"), "{text}");
}
