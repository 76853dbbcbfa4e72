//! The runbooks of `deploy/runbooks/`, run as they are written: each command here is in a runbook, except for the names
//! of files and machines.

use std::{collections::BTreeSet, path::PathBuf, process::Stdio};

use super::{
    relying_party::{Way, refresh, sign_in},
    restore::{DemoDirectory, Serving, conclave},
    world::{browser, field, kill_9},
};

/// A runbook, and the set of its commands that have been run.
pub(super) struct Runbook {
    commands: Vec<String>,
    run: BTreeSet<String>,
}

impl Runbook {
    pub(super) fn open(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/runbooks").join(name);
        let text = std::fs::read_to_string(path).unwrap();
        let shell = text.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("sh\n"));
        let commands = shell.flat_map(str::lines).map(str::trim).filter(|line| line.starts_with("conclave "));
        Self { commands: commands.map(str::to_owned).collect(), run: BTreeSet::new() }
    }

    /// The arguments of the command on this machine of the test.
    fn command(&mut self, house: &DemoDirectory, machine: u64, line: &str) -> Vec<String> {
        assert!(self.commands.iter().any(|command| command == line), "not in the runbook: {line}");
        self.run.insert(line.to_owned());
        let data = &house.demo.cluster.nodes[usize::try_from(machine).unwrap() - 1].data_dir;
        let here = line
            .replace("/etc/conclave/conclave.toml", &house.config(machine))
            .replace("/etc/conclave/", &house.file("").display().to_string())
            .replace("/backups", &house.file("").display().to_string())
            .replace("/var/lib/conclave", &data.display().to_string())
            .replace("10.0.0.1:9300", &house.first_address());
        here.split_whitespace().skip(1).map(str::to_owned).collect()
    }

    /// Runs the command and returns its output.
    #[track_caller]
    pub(super) fn step(&mut self, house: &DemoDirectory, machine: u64, line: &str) -> String {
        self.step_with(house, machine, line, &[])
    }

    #[track_caller]
    fn step_with(&mut self, house: &DemoDirectory, machine: u64, line: &str, more: &[&str]) -> String {
        let arguments = self.command(house, machine, line);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let output = conclave(&arguments).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{line}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn serve(&mut self, house: &DemoDirectory, machine: u64) -> Serving {
        self.command(house, machine, "conclave serve --config /etc/conclave/conclave.toml");
        Serving::start(&house.config(machine), &house.file(&format!("{machine}.log")))
    }

    #[track_caller]
    pub(super) fn end(self) {
        let left: Vec<_> = self.commands.iter().filter(|command| !self.run.contains(*command)).collect();
        assert!(left.is_empty(), "never run: {left:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_a_lost_administrator_a_lost_node_and_a_lost_house() {
    let mut house = DemoDirectory::start();

    let mut book = Runbook::open("upgrade.md");
    let status = "conclave cluster status --config /etc/conclave/conclave.toml";
    let save = "conclave snapshot save --linearizable --to /backups/before-upgrade.snapshot --config /etc/conclave/conclave.toml";
    book.step(&house, 1, save);
    let drill =
        "conclave snapshot drill /backups/before-upgrade.snapshot --config /etc/conclave/conclave.toml";
    assert!(book.step(&house, 1, drill).contains("passed     yes"));
    assert!(book.step(&house, 1, status).contains("leader"));
    book.step(&house, 1, "conclave cluster transfer-leader --config /etc/conclave/conclave.toml");
    book.end();

    let mut book = Runbook::open("lost-admin.md");
    let said =
        book.step(&house, 2, "conclave recover admin ada --create --config /etc/conclave/conclave.toml");
    let said = said + &book.step(&house, 2, "conclave recover admin --config /etc/conclave/conclave.toml");
    for (link, name) in said.lines().filter(|line| line.starts_with("http")).zip(["ada", "admin"]) {
        let person = browser();
        let page = person.get(house.demo.at_next_node(link)).send().await.unwrap().text().await.unwrap();
        assert!(page.contains(name), "{page}");
        let form = [
            ("ticket", field(&page, "ticket")),
            ("csrf", field(&page, "csrf")),
            ("password", "correct horse battery".into()),
            ("again", "correct horse battery".into()),
        ];
        // At another node than the one that showed the page.
        let url = house.demo.at_next_node(&format!("{}/recover", house.demo.cluster.front));
        assert_eq!(person.post(&url).form(&form).send().await.unwrap().status(), 303);
        assert_eq!(person.post(&url).form(&form).send().await.unwrap().status(), 409, "once");
    }
    assert!(book.step(&house, 2, "conclave user list --config /etc/conclave/conclave.toml").contains("ada"));
    book.end();

    let mut book = Runbook::open("lost-node.md");
    kill_9(house.demo.pid_of(3).unwrap());
    std::fs::remove_dir_all(&house.demo.cluster.nodes[2].data_dir).unwrap();
    book.step(&house, 1, status);
    book.step(&house, 1, "conclave cluster remove 3 --config /etc/conclave/conclave.toml");
    book.step(&house, 3, "conclave cluster join 10.0.0.1:9300 --config /etc/conclave/conclave.toml");
    let third = book.serve(&house, 3);
    house.ready(&[1, 2, 3]).await;
    book.end();

    let mut book = Runbook::open("lost-everything.md");
    let file = house.file("conclave.snapshot");
    std::fs::rename(house.save("saved"), file).unwrap();
    house.demo.kill();
    drop(third);
    let config = "--config /etc/conclave/conclave.toml";
    let of_file = |what: &str| format!("conclave {what} /backups/conclave.snapshot {config}");
    assert!(book.step(&house, 1, &of_file("snapshot inspect")).contains("opens here  yes"));
    book.step(&house, 1, &of_file("snapshot verify"));
    book.step(&house, 1, &of_file("snapshot drill"));
    book.step(&house, 1, &format!("{} --set-aside --dry-run", of_file("restore")));
    book.step(&house, 1, &format!("{} --set-aside", of_file("restore")));
    let mut serving = vec![book.serve(&house, 1)];
    house.ready(&[1]).await;
    for machine in [2, 3] {
        book.step(&house, machine, &format!("conclave cluster join 10.0.0.1:9300 {config} --set-aside"));
        serving.push(book.serve(&house, machine));
    }
    house.ready(&[1, 2, 3]).await;
    // A node that has just joined is a learner first.
    let members = book.step(&house, 1, status);
    assert_eq!(members.matches("follower").count() + members.matches("learner").count(), 2, "{members}");
    assert!(house.user("ada").await.is_some());
    book.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_quorum() {
    let mut house = DemoDirectory::start();
    house.create("kept").await;
    house.demo.digests().await;
    house.demo.kill();
    let mut book = Runbook::open("lost-quorum.md");
    let recover =
        "conclave recover from-survivor /var/lib/conclave --lost 1,2 --config /etc/conclave/conclave.toml";
    let said = book.step(&house, 3, &format!("{recover} --dry-run"));
    assert!(said.contains("Writes acknowledged after that by the lost nodes alone are lost"), "{said}");
    book.step_with(&house, 3, recover, &["--confirm", "lost 1 2"]);
    book.end();
    let _serving = Serving::start(&house.config(3), &house.file("3.log"));
    house.ready(&[3]).await;
    assert!(house.user("kept").await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leaked_secret() {
    let house = DemoDirectory::start();
    let before = sign_in(&house.demo, Way::EachToTheNextNode).await.unwrap();
    assert!(house.knows(0, &before).await);
    let mut book = Runbook::open("leaked-secret.md");
    let config = "--config /etc/conclave/conclave.toml";
    book.step(&house, 1, "conclave secret new --out /etc/conclave/new.secret");
    let made = std::fs::read_to_string(house.file("new.secret")).unwrap();
    assert!(made.trim().len() >= 32, "a new secret");
    // `secret_day` covers the three phases and their effects.
    let said = book.step(&house, 2, &format!("conclave secret status {config}"));
    assert!(said.contains("safe_to_drop") || said.contains("safe to drop"), "{said}");
    let said = book.step(&house, 2, &format!("conclave secret status -o json {config}"));
    let status: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(status["nodes"].as_array().unwrap().len(), 3, "each node says which secret it has: {said}");
    let published = |said: &str| said.matches("ES256").count();
    let keys = format!("conclave key list {config}");
    let earlier = published(&book.step(&house, 3, &keys));
    book.step(&house, 3, &format!("conclave secret end-everything --yes {config}"));
    for node in 0..3 {
        assert!(!house.knows(node, &before).await, "a session of before is accepted at node {node}");
    }
    assert!(refresh(&house.demo, Way::EachToTheNextNode, &before.refresh_token).await.is_err());
    for algorithm in ["ES256", "RS256", "EdDSA"] {
        book.step(&house, 3, &format!("conclave key rotate {algorithm} --now {config}"));
    }
    assert!(published(&book.step(&house, 3, &keys)) > earlier, "a new key signs");
    book.end();
    let again = sign_in(&house.demo, Way::EachToTheNextNode).await.unwrap();
    assert!(house.knows(2, &again).await);
}
