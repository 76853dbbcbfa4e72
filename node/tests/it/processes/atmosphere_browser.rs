//! Sign-in with Atmosphere as a user does it: a real browser, three processes behind their front, the pages of the real
//! account server.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{
    atmosphere::{Names, PASSWORD, Servers, text},
    chromium::Chromium,
    world::Demo,
};

/// The longest time that the account server's page may take to redirect back.
const LIMIT: Duration = Duration::from_secs(30);
const ALICE: &str = "alice.test";

/// Three nodes that know the real servers, and admit any account.
fn demo(servers: &Servers, names: &Names) -> Demo {
    let settings = [
        ("CONCLAVE_OUTBOUND__ALLOW", "127.0.0.1,::1".to_owned()),
        ("CONCLAVE_ATMOSPHERE__UNSAFE_DEV", "true".into()),
        ("CONCLAVE_ATMOSPHERE__PLC_DIRECTORIES", format!(r#"["{}"]"#, servers.plc)),
        ("CONCLAVE_ATMOSPHERE__NAMESERVERS", format!(r#"["{}"]"#, names.addr)),
    ];
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let demo = Demo::start_with(&[], &settings);
    demo.conclave(&["upstream", "add", "atmosphere", "--atmosphere", "--admit", "any"]);
    demo
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_signs_in_with_chromium_at_the_pages_of_a_real_account_server() {
    let mut servers = Servers::start(&[]);
    let names = Names::start().await;
    let did = text(&servers.told(&format!("account {ALICE}")), "did");
    names.know(ALICE, &did);
    let demo = demo(&servers, &names);
    // The account server's pages need JavaScript.
    let chromium = Chromium::start_with(demo.own_port(90), &json!({})).await;

    chromium.open(&format!("{}/", demo.cluster.front)).await;
    chromium.click("#upstream-atmosphere").await;
    chromium.fill("input[name=handle]", &format!("@{}", ALICE.to_uppercase())).await;
    chromium.click("#submit").await;

    // At the account server: the account is prefilled; the user signs in and consents.
    chromium.fill("input[type=password]", PASSWORD).await;
    assert!(chromium.url().await.starts_with(&servers.pds), "{}", chromium.url().await);
    chromium.click("button[type=submit]").await;
    chromium.click("//button[normalize-space()='Authorize']").await;

    let deadline = Instant::now() + LIMIT;
    while chromium.url().await != format!("{}/", demo.cluster.front) {
        assert!(Instant::now() < deadline, "the browser is still at {}", chromium.url().await);
    }
    assert_eq!(chromium.text("#account").await, ALICE);
    let sessions = demo.conclave(&["session", "list", "--user", ALICE]);
    assert_eq!(sessions.as_array().map(Vec::len), Some(1), "{sessions}");
}
