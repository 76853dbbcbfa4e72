//! Relying parties that others wrote: openid-client (npm) and Authlib (PyPI), each against the front of a real cluster, which sends
//! every request to the next node. `make test` installs them beside `tests/relying_parties/`.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use super::world::Demo;

const REDIRECT_URI: &str = "http://127.0.0.1:1/callback";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/relying_parties")
}

/// Runs a program to its end, and reads its last line as JSON.
fn run(command: &mut Command) -> Value {
    let output =
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; `make test` installs it"));
    let (out, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}\n{out}\n{said}");
    serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}\n{said}"))
}

fn create_client(demo: &Demo, id: &str, options: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conclave"));
    command.args(["client", "create", "--id", id, "-o", "json"]).args(options);
    command.env("CONCLAVE_API", &demo.cluster.nodes[0].api).env("CONCLAVE_TOKEN", &demo.cluster.admin.token);
    run(&mut command)
}

const PEOPLE: &[&str] = &[
    "--redirect-uri",
    REDIRECT_URI,
    "--consent",
    "implicit",
    "--scope",
    "openid",
    "--scope",
    "profile",
    "--scope",
    "email",
    "--scope",
    "offline_access",
];

/// What the parties are told.
fn told(demo: &Demo) -> Value {
    let key = run(Command::new("node").arg(folder().join("key.mjs")));
    let keys = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(keys.path(), key["jwks"].to_string()).unwrap();
    let keys = keys.path().display().to_string();
    let with =
        |more: &[&str]| [PEOPLE, more].concat().iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let made = |id: &str, options: Vec<String>| {
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        create_client(demo, id, &options)["client_secret"].clone()
    };
    let basic = made("basic", with(&[]));
    let post = made("post", with(&["--auth-method", "client_secret_post"]));
    made(
        "bound",
        with(&[
            "--auth-method",
            "private_key_jwt",
            "--jwks-file",
            &keys,
            "--assertion-algorithm",
            "ES256",
            "--dpop-bound",
            "true",
        ]),
    );
    let machine =
        ["--auth-method", "client_secret_post", "--grant-type", "client_credentials", "--scope", "reports"];
    let machine = made("machine", machine.map(str::to_owned).to_vec());
    let device = "urn:ietf:params:oauth:grant-type:device_code";
    made("device", with(&["--auth-method", "none", "--grant-type", device]));
    json!({
        "issuer": demo.cluster.issuer,
        "username": demo.cluster.admin.username,
        "password": demo.cluster.admin.password,
        "redirectUri": REDIRECT_URI,
        "clients": {
            "basic": { "id": "basic", "secret": basic },
            "post": { "id": "post", "secret": post },
            "bound": { "id": "bound", "jwk": key["jwk"] },
            "machine": { "id": "machine", "secret": machine },
            "device": { "id": "device" },
        },
    })
}

#[tokio::test]
async fn relying_parties_of_others_are_served_by_every_node() {
    let demo = Demo::start(26_600, &[]);
    demo.all_ready().await;
    let told = told(&demo).to_string();

    let seen = run(Command::new("node").arg(folder().join("openid_client.mjs")).arg(&told));
    assert_eq!(seen, json!(["codeRefreshIntrospectRevoke", "boundToAKey", "machine", "pushed", "device"]));

    let seen =
        run(Command::new(folder().join("venv/bin/python")).arg(folder().join("authlib_rp.py")).arg(&told));
    assert_eq!(seen, json!(["client_secret_basic", "client_secret_post"]));
}
