//! Tests of the command line: parsing as documented, and commands against a real node.

use clap::{CommandFactory as _, Parser as _};
use serde_json::{Value, json};

use crate::testing::{ApiRole, TestNode};

use super::{Cli, Command, outcome, output};

/// Most groups that a user is in (`conclave_state::group`).
const MAX_GROUPS_OF_USER: usize = 256;

fn parse(line: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("conclave").chain(line.iter().copied()))
}

/// Runs a command and returns its JSON, or its exit code.
async fn run(node: &TestNode, token: &str, line: &[&str]) -> Result<Value, u8> {
    run_at(node.api_url(), token, line).await
}

pub(super) async fn run_at(api: &str, token: &str, line: &[&str]) -> Result<Value, u8> {
    let mut line = line.to_vec();
    line.extend(["--api", api, "--token", token, "-o", "json"]);
    let Command::Tool(tool) = parse(&line).unwrap().command else { panic!("not a tool") };
    match outcome(tool).await {
        Ok((output, format)) => Ok(serde_json::from_str(&output::render(&output, format)).unwrap()),
        Err(failure) => Err(failure.exit_code()),
    }
}

#[test]
fn the_definition_is_sound_and_every_command_has_an_example() {
    fn leaves(command: &clap::Command, path: &str) {
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            let path = format!("{path} {}", sub.get_name());
            let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains(&format!("conclave{path}")), "{path} has no example");
            leaves(sub, &path);
        }
    }
    Cli::command().debug_assert();
    leaves(&Cli::command(), "");
}

#[test]
fn every_argument_says_what_it_is() {
    fn silent(command: &clap::Command, path: &str, found: &mut Vec<String>) {
        for argument in
            command.get_arguments().filter(|a| a.get_help().is_none_or(|h| h.to_string().is_empty()))
        {
            found.push(format!("{path} {}", argument.get_id()));
        }
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            silent(sub, &format!("{path} {}", sub.get_name()), found);
        }
    }
    let mut found = Vec::new();
    silent(&Cli::command(), "conclave", &mut found);
    assert_eq!(found, Vec::<String>::new());
}

/// The examples are lines of a shell: the part with `conclave` must parse.
#[test]
fn the_examples_parse() {
    fn examples(command: &clap::Command) -> Vec<String> {
        let own = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let subs = command.get_subcommands().flat_map(examples);
        own.lines().map(str::to_owned).chain(subs).collect()
    }
    let mut count = 0;
    for line in examples(&Cli::command()) {
        let Some((_, ours)) =
            line.split_once("conclave ").filter(|_| line.starts_with("  ") && !line.starts_with("   "))
        else {
            continue;
        };
        let ours =
            ours.split(" | ").next().unwrap().split(')').next().unwrap().replace("'Ada Lovelace'", "Ada");
        let ours = ours.replace("'Everybody on the payroll'", "x");
        parse(&ours.split_whitespace().collect::<Vec<_>>()).unwrap_or_else(|error| panic!("{line}: {error}"));
        count += 1;
    }
    assert!(count > 40, "{count} examples");
}

#[test]
fn a_wrong_line_is_refused_before_anything_is_asked() {
    for bad in [
        &["user", "create"][..],
        &["user", "create", "ada", "--password", "x"],
        &["user", "create", "ada", "--password-stdin", "--no-password"],
        &["session", "revoke"],
        &["session", "revoke", "00", "--user", "ada"],
        &["session", "revoke", "--user", "ada", "--with-grants"],
        &["token", "new", "--name", "x", "--role", "root"],
        &["token", "new", "--name", "x", "--ttl", "0s"],
        &["user", "list", "-o", "yaml"],
        &["demo", "--nodes", "0"],
        &["demo", "--nodes", "10"],
    ] {
        assert_eq!(parse(bad).unwrap_err().exit_code(), 2, "{bad:?}");
    }
    let Ok(Cli { command: Command::Serve(serve) }) =
        parse(&["serve", "--config", "a.toml", "--exit-with-parent"])
    else {
        panic!("serve")
    };
    assert!(serve.exit_with_parent && serve.config.is_some());
    let Ok(Cli { command: Command::Demo(demo) }) = parse(&["demo"]) else { panic!("demo") };
    assert_eq!((demo.nodes, demo.base_port, demo.json, demo.restart), (3, 9000, false, false));
}

#[tokio::test]
async fn a_mistyped_member_changes_nothing_and_a_group_shows_its_members() {
    let node = TestNode::start().await;
    let (_, token) = node.api_token(ApiRole::Admin).await;
    let run = async |line: &[&str]| run(&node, &token, line).await;
    for name in ["ada", "bob", "carl"] {
        run(&["user", "create", name, "--no-password"]).await.unwrap();
    }
    run(&["group", "create", "staff"]).await.unwrap();
    assert_eq!(run(&["group", "add", "staff", "ada", "boob"]).await, Err(3));
    assert_eq!(run(&["group", "show", "staff"]).await.unwrap()["members"], json!([]));
    run(&["group", "add", "staff", "ada", "bob"]).await.unwrap();
    assert_eq!(run(&["group", "show", "staff"]).await.unwrap()["members"], json!(["ada", "bob"]));
    let listed = run(&["user", "list", "--group", "staff"]).await.unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 2);
    // A user with the largest number of groups cannot be added: the changes before are undone.
    let groups: Vec<String> = (0..MAX_GROUPS_OF_USER).map(|n| format!("g{n}")).collect();
    for group in &groups {
        run(&["group", "create", group]).await.unwrap();
    }
    let mut create = vec!["user", "create", "full", "--no-password"];
    create.extend(groups.iter().flat_map(|group| ["--group", group]));
    run(&create).await.unwrap();
    assert_eq!(run(&["group", "add", "staff", "ada", "carl", "full"]).await, Err(4));
    assert_eq!(run(&["group", "show", "staff"]).await.unwrap()["members"], json!(["ada", "bob"]));
    assert_eq!(run(&["group", "show", "nothing"]).await, Err(3));
    assert_eq!(run(&["snapshot", "restore", "x.snapshot"]).await, Err(2), "asks for --yes");
}

#[tokio::test]
async fn people_groups_applications_and_clients_by_command() {
    let node = TestNode::start().await;
    let (_, token) = node.api_token(ApiRole::Admin).await;
    let run = async |line: &[&str]| run(&node, &token, line).await;

    let ada = run(&["user", "create", "ada", "--no-password", "--admin", "--attribute", "team=engine"])
        .await
        .unwrap();
    assert_eq!((&ada["groups"][0], &ada["attributes"]["team"]), (&"admins".into(), &"engine".into()));
    run(&["user", "create", "bob", "--no-password", "--admin"]).await.unwrap();
    assert_eq!(run(&["user", "create", "ada", "--no-password"]).await, Err(4));
    assert_eq!(run(&["user", "show", "nobody"]).await, Err(3));
    assert_eq!(run(&["user", "disable", "ada"]).await.unwrap()["disabled"], true);
    assert_eq!(run(&["user", "enable", "ada"]).await.unwrap()["disabled"], false);
    assert_eq!(
        run(&["user", "update", "ada", "--email", "a@b.c"]).await.unwrap()["attributes"]["team"],
        "engine"
    );
    assert_eq!(
        run(&["user", "update", "ada", "--clear-attributes"]).await.unwrap()["attributes"],
        serde_json::json!({})
    );
    let names: Vec<String> = run(&["user", "list"])
        .await
        .unwrap()
        .as_array()
        .unwrap()
        .iter()
        .map(|u| u["username"].to_string())
        .collect();
    assert_eq!(names, ["\"ada\"", "\"bob\""]);

    run(&["group", "create", "staff"]).await.unwrap();
    run(&["group", "add", "staff", "ada", "bob"]).await.unwrap();
    run(&["group", "remove", "staff", "bob"]).await.unwrap();
    let groups = run(&["group", "list"]).await.unwrap();
    assert_eq!((&groups[1]["name"], &groups[1]["member_count"]), (&"staff".into(), &1.into()));

    run(&["app", "create", "wiki", "--host", "wiki.example.org", "--group", "staff"]).await.unwrap();
    assert_eq!(
        run(&["app", "update", "wiki", "--name", "Wiki"]).await.unwrap()["groups"][0],
        "staff",
        "the rule stays"
    );
    assert_eq!(run(&["app", "update", "wiki", "--nobody"]).await.unwrap()["groups"], serde_json::json!([]));
    assert_eq!(run(&["app", "show", "wiki"]).await.unwrap()["name"], "Wiki");

    let uri = "https://wiki.example.org/cb";
    let made =
        run(&["client", "create", "--id", "wiki", "--app", "wiki", "--redirect-uri", uri]).await.unwrap();
    assert!(made["client_secret"].as_str().is_some_and(|secret| secret.len() == 43));
    let public = run(&["client", "create", "--id", "spa", "--auth-method", "none"]).await.unwrap();
    assert_eq!(public["client_secret"], Value::Null);
    assert_eq!(
        run(&["client", "update", "wiki", "--disabled", "true"]).await.unwrap()["redirect_uris"][0],
        uri
    );
    assert_ne!(
        run(&["client", "rotate-secret", "wiki"]).await.unwrap()["client_secret"],
        made["client_secret"]
    );
    assert_eq!(run(&["client", "show", "wiki"]).await.unwrap()["application"], "wiki");
    assert_eq!(run(&["client", "list"]).await.unwrap().as_array().unwrap().len(), 2);
    assert_eq!(run(&["app", "delete", "wiki"]).await, Err(4), "a client leans on it");
    let kept = run(&["client", "rotate-secret", "wiki", "--keep-old-for", "1h"]).await.unwrap();
    assert!(kept["client_secret"].is_string());
    assert_ne!(run(&["client", "show", "wiki"]).await.unwrap()["previous_secret_expires_at_ms"], 0);
    let job = [
        "client",
        "create",
        "--id",
        "job",
        "--grant-type",
        "client_credentials",
        "--access-token-format",
        "opaque",
    ];
    let job = run(&job).await.unwrap();
    assert_eq!(
        (&job["grant_types"], &job["access_token_format"]),
        (&json!(["client_credentials"]), &json!("opaque"))
    );
    let update = ["client", "update", "job", "--dpop-bound", "true", "--audience", "https://job.test"];
    assert_eq!(run(&update).await.unwrap()["audiences"][0], "https://job.test");
    run(&["client", "delete", "job"]).await.unwrap();
    run(&["client", "delete", "wiki"]).await.unwrap();
    run(&["app", "delete", "wiki"]).await.unwrap();
    assert_eq!(run(&["app", "list"]).await.unwrap(), serde_json::json!([]));
    run(&["group", "delete", "staff"]).await.unwrap();
    run(&["user", "delete", "bob"]).await.unwrap();
    assert_eq!(run(&["user", "delete", "bob"]).await, Err(3));
}

#[tokio::test]
async fn providers_and_identities_by_command() {
    let node = TestNode::start().await;
    node.create_user("ada", "", &["staff"]).await;
    let (_, token) = node.api_token(ApiRole::Admin).await;
    let run = async |line: &[&str]| run(&node, &token, line).await;
    let add = [
        "upstream",
        "add",
        "corp",
        "--issuer",
        "https://corp.test",
        "--client-id",
        "us",
        "--admit",
        "domains",
        "--domain",
        "Corp.test",
        "--group",
        "staff",
    ];
    let added = run(&add).await.unwrap();
    assert_eq!(added["redirect_uri"], "http://127.0.0.1:9000/upstream/corp/callback");
    assert_eq!((&added["domains"], &added["scopes"][0]), (&json!(["corp.test"]), &json!("openid")));
    assert_eq!(run(&add).await, Err(4), "the name is taken");
    assert_eq!(run(&["upstream", "add", "x", "--issuer", "ftp://x", "--client-id", "us"]).await, Err(4));
    let update = ["upstream", "update", "corp", "--admit", "none", "--claim", "username=login"];
    let updated = run(&update).await.unwrap();
    assert_eq!((&updated["domains"], &updated["claims"]["username"]), (&json!([]), &json!("login")));
    assert_eq!(run(&["upstream", "show", "corp"]).await.unwrap()["has_client_secret"], false);
    assert_eq!(run(&["upstream", "list"]).await.unwrap().as_array().unwrap().len(), 1);
    assert_eq!(run(&["upstream", "identities", "ada"]).await.unwrap(), json!([]));
    assert_eq!(run(&["upstream", "unlink", "corp", "ada"]).await, Err(3));
    run(&["upstream", "remove", "corp"]).await.unwrap();
    assert_eq!(run(&["upstream", "remove", "corp"]).await, Err(3));
}

#[tokio::test]
async fn tokens_sessions_and_the_status_by_command() {
    let node = TestNode::start().await;
    node.create_user("ada", "", &[]).await;
    let (_, token) = node.api_token(ApiRole::Admin).await;
    let made = run(&node, &token, &["token", "new", "--name", "ci", "--ttl", "1h"]).await.unwrap();
    let reader = made["token"].as_str().unwrap();
    assert_eq!(run(&node, reader, &["session", "list", "--user", "ada"]).await, Ok(serde_json::json!([])));
    assert_eq!(run(&node, reader, &["session", "revoke", "--user", "ada"]).await, Err(5));
    run(&node, &token, &["session", "revoke", "--user", "ada"]).await.unwrap();
    let session = "00".repeat(16);
    assert_eq!(run(&node, &token, &["session", "revoke", &session]).await.unwrap()["with_grants"], false);
    let with_grants = ["session", "revoke", &session, "--with-grants"];
    assert_eq!(run(&node, &token, &with_grants).await.unwrap()["with_grants"], true);
    assert_eq!(run(&node, &token, &["token", "list"]).await.unwrap().as_array().unwrap().len(), 2);
    run(&node, &token, &["token", "revoke", made["id"].as_str().unwrap()]).await.unwrap();
    assert_eq!(run(&node, reader, &["user", "list"]).await, Err(5));
    let status = run(&node, &token, &["cluster", "status"]).await.unwrap();
    assert_eq!((&status["leader_id"], &status["nodes"][0]["role"]), (&1.into(), &"leader".into()));
}

#[tokio::test]
async fn a_new_secret_is_its_owners_alone_and_never_replaces_another() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cluster.secret");
    let line = ["secret", "new", "--out", path.to_str().unwrap()];
    let tool = || match parse(&line).unwrap().command {
        Command::Tool(tool) => tool,
        other => panic!("{other:?}"),
    };
    outcome(tool()).await.unwrap();
    let first = std::fs::read_to_string(&path).unwrap();
    assert!(conclave_crypto::secret::ClusterSecret::parse(&first).is_ok());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(outcome(tool()).await.unwrap_err().exit_code(), 1);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), first);
}

#[tokio::test]
async fn without_a_token_the_nodes_own_secret_opens_its_api() {
    let node = TestNode::start_on_the_machines_clock().await;
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("cluster.secret");
    conclave_config::write_new_secret(&secret, &TestNode::secret()).unwrap();
    let config = dir.path().join("conclave.toml");
    let api = node.api_url().trim_start_matches("http://");
    std::fs::write(&config, format!("[cluster]\nsecret_file = {secret:?}\n[api]\nlisten = {api:?}\n"))
        .unwrap();
    let listed = |config: &std::path::Path| {
        let line = ["user", "list", "--config", config.to_str().unwrap()];
        let Command::Tool(tool) = parse(&line).unwrap().command else { panic!("not a tool") };
        outcome(tool)
    };
    listed(&config).await.unwrap();
    std::fs::remove_file(&secret).unwrap();
    assert_eq!(listed(&config).await.unwrap_err().exit_code(), 5, "and looking makes no secret");
    assert!(!secret.exists());
}

#[tokio::test]
async fn app_passwords_and_the_rules_of_the_check_by_command() {
    let node = TestNode::start().await;
    node.create_user("ada", "", &[]).await;
    let (_, token) = node.api_token(ApiRole::Admin).await;
    let run = async |line: &[&str]| run(&node, &token, line).await;
    let app = run(&["app", "create", "wiki", "--host", "*.wiki.test", "--basic", "on"]).await.unwrap();
    assert_eq!((&app["hosts"], &app["check"]), (&json!(["*.wiki.test"]), &json!(["basic"])));
    let app = run(&["app", "update", "wiki", "--bearer", "on", "--assertion", "on"]).await.unwrap();
    assert_eq!(app["check"], json!(["bearer", "basic", "assertion"]), "what is not named stays");
    let app = run(&["app", "update", "wiki", "--basic", "off"]).await.unwrap();
    assert_eq!(app["check"], json!(["bearer", "assertion"]));

    let create = ["app-password", "create", "ada", "--name", "phone", "--app", "wiki", "--ttl", "30d"];
    let made = run(&create).await.unwrap();
    assert_eq!((&made["username"], &made["application"]), (&json!("ada"), &json!("wiki")));
    let password = made["password"].as_str().unwrap();
    assert!(node.auth().app_password("ada", password).await.unwrap().is_some());
    let everywhere = run(&["app-password", "create", "ada", "--name", "backup"]).await.unwrap();
    assert!(everywhere["application"].is_null() && everywhere["expires_at_ms"].is_null());
    let listed = run(&["app-password", "list", "--user", "ada"]).await.unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert!(!listed.to_string().contains(password), "shown once");
    let id = made["id"].as_str().unwrap();
    run(&["app-password", "revoke", id]).await.unwrap();
    assert!(node.auth().app_password("ada", password).await.unwrap().is_none());
    assert_eq!(run(&["app-password", "revoke", id]).await, Err(3));
    assert_eq!(run(&["app-password", "list", "--user", "nobody"]).await, Err(3));
    assert_eq!(run(&["app-password", "create", "nobody", "--name", "x"]).await, Err(3));
    assert_eq!(run(&["app-password", "list"]).await.unwrap().as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn policies_by_command() {
    let node = TestNode::start().await;
    let (_, token) = node.api_token(ApiRole::Admin).await;
    let run = async |line: &[&str]| run(&node, &token, line).await;
    for line in [
        &["group", "create", "staff"][..],
        &["user", "create", "ada", "--no-password", "--admin"],
        &["user", "create", "bob", "--no-password"],
        &["group", "add", "staff", "ada", "bob"],
        &["app", "create", "wiki", "--host", "wiki.example.org", "--group", "staff"],
    ] {
        run(line).await.unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let staff = file("staff.toml", "[[row]]\neffect = \"allow\"\ngroup = \"staff\"\n");
    let admins = file("admins.json", r#"{ "row": [{ "effect": "allow", "group": "admins" }] }"#);
    let bob = file("bob.toml", "[[row]]\neffect = \"allow\"\nuser = \"bob\"\n");
    let bad = file("bad.toml", "[[row]]\neffect = \"maybe\"\n");

    assert_eq!(run(&["policy", "set", "wiki", &bad]).await, Err(2), "told before anything is sent");
    assert_eq!(run(&["policy", "set", "wiki", "/nowhere.toml"]).await, Err(2));
    assert_eq!(run(&["policy", "set", "nowhere", &staff]).await, Err(3));
    assert_eq!(run(&["policy", "set", "wiki", &bob]).await, Err(4), "no administrator would be let in");
    assert!(run(&["policy", "set", "wiki", &staff]).await.unwrap()["version"].as_u64().unwrap() > 0);
    assert_eq!(run(&["policy", "shadow", "wiki"]).await, Err(3), "there is no candidate");
    run(&["policy", "candidate", "set", "wiki", &admins]).await.unwrap();
    let shown = run(&["policy", "show", "wiki"]).await.unwrap();
    assert_eq!(
        (&shown["policy"]["row"][0]["group"], &shown["candidate"]["row"][0]["group"]),
        (&json!(["staff"]), &json!(["admins"]))
    );

    let found = run(&["policy", "test", "wiki", "--user", "bob"]).await.unwrap();
    assert_eq!(
        (&found["allowed"], &found["row"], &found["saw"]),
        (&json!(true), &json!(1), &json!(["user.groups = staff"]))
    );
    let all = run(&["policy", "test", "wiki", "--candidate", "--at", "2026-12-24T20:00:00Z"]).await.unwrap();
    let admitted = all.as_array().unwrap().iter().filter(|found| found["allowed"] == true);
    assert_eq!(admitted.map(|found| &found["user"]).collect::<Vec<_>>(), ["ada"]);
    assert!(parse(&["policy", "test", "wiki", "--at", "tomorrow"]).is_err());

    for report in ["shadow", "replay"] {
        let report = run(&["policy", report, "wiki"]).await.unwrap();
        assert_eq!((&report["nodes"], &report["would_deny"]), (&json!([1]), &json!(0)), "{report}");
    }
    assert_eq!(run(&["policy", "explain", "1-0123456789abcdef"]).await, Err(3));
    assert_eq!(run(&["policy", "explain", "7-0123456789abcdef"]).await, Err(1), "a node that is not there");
    assert_eq!(run(&["policy", "explain", "nonsense"]).await, Err(2));
    assert_eq!(run(&["policy", "candidate", "promote", "wiki", "--watched", "1"]).await, Err(4));
    run(&["policy", "candidate", "promote", "wiki"]).await.unwrap();
    assert_eq!(run(&["policy", "test", "wiki", "--user", "bob"]).await.unwrap()["allowed"], false);
    assert_eq!(run(&["group", "delete", "admins"]).await, Err(4), "a policy names it");
    run(&["policy", "remove", "wiki"]).await.unwrap();
    assert_eq!(run(&["policy", "remove", "wiki"]).await, Err(3));
    assert_eq!(run(&["policy", "test", "wiki", "--user", "bob"]).await.unwrap()["allowed"], true);
}

#[tokio::test]
async fn what_one_node_decided_is_explained_and_counted_from_any_other() {
    use conclave_auth::policy::Circumstances;
    let nodes = TestNode::start_cluster(3).await;
    let (_, token) = nodes[0].api_token(ApiRole::Admin).await;
    let run = async |line: &[&str]| run(&nodes[0], &token, line).await;
    for line in [
        &["group", "create", "staff"][..],
        &["user", "create", "ada", "--no-password"],
        &["group", "add", "staff", "ada"],
        &["app", "create", "wiki", "--host", "wiki.example.org", "--everyone"],
    ] {
        run(line).await.unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nobody.toml");
    std::fs::write(&path, "[[row]]\neffect = \"allow\"\nnetwork = \"10.0.0.0/8\"\n").unwrap();
    run(&["policy", "candidate", "set", "wiki", path.to_str().unwrap()]).await.unwrap();
    let newest = nodes.iter().map(|node| node.cluster().view().index()).max().unwrap();
    for node in &nodes {
        let state = node.cluster().view_at(newest).await.unwrap();
        let (wiki, ada) = (state.application_by_slug("wiki").unwrap(), state.user_by_name("ada").unwrap());
        for _ in 0..2 {
            let address = Some([192, 0, 2, 1].into());
            assert!(
                node.auth()
                    .judge(&state, wiki, ada, &Circumstances { address, ..Default::default() })
                    .allowed
            );
        }
    }
    let report = run(&["policy", "shadow", "wiki"]).await.unwrap();
    assert_eq!(
        (&report["nodes"], &report["seen"], &report["would_deny"]),
        (&json!([1, 2, 3]), &json!(6), &json!(6))
    );
    assert_eq!(
        (&report["differences"][0]["user"], &report["differences"][0]["count"]),
        (&json!("ada"), &json!(6))
    );
    // The first request that each node allows is recorded.
    let replayed = run(&["policy", "replay", "wiki"]).await.unwrap();
    assert_eq!((&replayed["looked_at"], &replayed["would_deny"]), (&json!(3), &json!(3)));
    run(&["policy", "candidate", "promote", "wiki"]).await.unwrap();
    let index = nodes.iter().map(|node| node.cluster().view().index()).max().unwrap();
    let state = nodes[2].cluster().view_at(index).await.unwrap();
    let (wiki, ada) = (state.application_by_slug("wiki").unwrap(), state.user_by_name("ada").unwrap());
    let denied = nodes[2].auth().judge(&state, wiki, ada, &Circumstances::default());
    let told = run(&["policy", "explain", &denied.decision.unwrap()]).await.unwrap();
    assert_eq!((&told["user"], &told["allowed"]), (&json!("ada"), &json!(false)));
    assert!(told["why"].as_str().unwrap().contains("the client's address is not known"), "{told}");
}

#[tokio::test]
async fn users_and_groups_are_renamed_by_command() {
    use conclave_proto::command::v1::{RaiseLevel, command::Body};
    let node = TestNode::start().await;
    let (_, token) = node.api_token(ApiRole::Admin).await;
    let run = async |line: &[&str]| run(&node, &token, line).await;
    let raise = RaiseLevel { level: conclave_state::level::NAMES };
    node.propose(Body::RaiseLevel(raise)).await.unwrap();
    run(&["group", "create", "staff"]).await.unwrap();
    run(&["user", "create", "ada", "--no-password", "--group", "staff"]).await.unwrap();
    let before = run(&["user", "show", "ada"]).await.unwrap();
    let after = run(&["user", "rename", "ada", "Lovelace"]).await.unwrap();
    assert_eq!((&after["username"], &after["id"]), (&json!("lovelace"), &before["id"]));
    assert!(run(&["user", "show", "ada"]).await.is_err());
    let crew = run(&["group", "rename", "Staff", "Crew"]).await.unwrap();
    assert_eq!((&crew["name"], &crew["member_count"]), (&json!("Crew"), &json!(1)));
    assert_eq!(run(&["group", "show", "CREW"]).await.unwrap()["members"], json!(["lovelace"]));
    assert!(run(&["group", "create", "crew"]).await.is_err());
}
