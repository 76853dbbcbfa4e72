//! Proxies always accept Conclave's responses: the user in the largest number of groups, many concurrent long requests
//! by a client without a session, refusals and a lost quorum, through each proxy with the configuration of
//! `deploy/proxies`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use conclave_proto::admin::v1::{
    CreateGroupRequest, MemberRequest, group_service_client::GroupServiceClient,
};

use super::{
    proxies::{ID_HOST, Proxy, Seen, application, command, nginx_test, open_and_sign_in},
    world::{Demo, kill_9},
};

/// The largest number of groups of a user; the demo's administrator is in one already.
const MOST_GROUPS: usize = 256;
/// The number of long requests to each proxy, spread over `UNTRUSTED_CONNECTIONS` connections.
const STORM: usize = 240;
const UNTRUSTED_CONNECTIONS: usize = 6;
/// The longest time for a proxy to show that no node can decide.
const LIMIT: Duration = Duration::from_secs(30);

/// Adds the administrator to as many groups as possible, with names of the largest length.
async fn join_every_group(demo: &Demo) {
    let api = tonic::transport::Endpoint::from_shared(demo.cluster.nodes[0].api.clone()).unwrap();
    let mut groups = GroupServiceClient::new(api.connect().await.unwrap());
    let bearer: tonic::metadata::MetadataValue<_> =
        format!("Bearer {}", demo.cluster.admin.token).parse().unwrap();
    for n in 1..MOST_GROUPS {
        let name = format!("{n:03}-{}", "g".repeat(60));
        let command = CreateGroupRequest { name: name.clone(), ..Default::default() };
        let mut request = tonic::Request::new(command);
        request.metadata_mut().insert("authorization", bearer.clone());
        groups.create_group(request).await.unwrap();
        let mut request = tonic::Request::new(MemberRequest { group: name, user: "admin".into() });
        request.metadata_mut().insert("authorization", bearer.clone());
        groups.add_member(request).await.unwrap();
    }
}

/// Denied below `/admin/`, and public below `/public/`.
fn set_policy(demo: &Demo) {
    let policy = r#"{"row": [{"effect": "deny", "request": {"path": ["/admin/*"]}}, {"effect": "allow", "group": "admins"}],
                     "public": [{"path": ["/public/*"]}]}"#;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), policy).unwrap();
    command(demo, &["policy", "set", "--force", "demo-app", file.path().to_str().unwrap()]);
}

async fn proxy_of(name: &str, demo: &Demo, port: u16, application: std::net::SocketAddr) -> Proxy {
    let nodes = &demo.cluster.nodes;
    match name {
        "nginx" => Proxy::nginx(nodes, port, application).await,
        "Caddy" => Proxy::caddy(nodes, port, application).await,
        "HAProxy" => Proxy::haproxy(nodes, port, application).await,
        "Envoy over HTTP" => Proxy::envoy(nodes, port, application).await,
        "Envoy over gRPC" => Proxy::envoy_with("envoy-grpc.yaml", nodes, port, application).await,
        _ => Proxy::traefik(nodes, port, application).await,
    }
}

/// The longest possible responses, with and without an assertion.
async fn the_longest_answer_arrives(
    demo: &Demo,
    name: &str,
    proxy: &Proxy,
    person: &reqwest::Client,
    seen: &Seen,
) {
    for (profile, assertion) in [("all", "off"), ("remote", "off"), ("authentik", "on"), ("all", "on")] {
        let change = ["app", "update", "demo-app", "--headers-profile", profile, "--assertion", assertion];
        command(demo, &change);
        seen.lock().unwrap().take();
        let reply = person.get(proxy.url("/")).header("accept", "text/html").send().await.unwrap();
        assert_eq!(reply.status(), 200, "{name}: {profile}, assertion {assertion}");
        let (_, headers) = seen.lock().unwrap().take().expect("the request reached the application");
        let value = |name: &str| headers.get(name).map_or("", |values| values[0].as_str());
        let groups = if profile == "authentik" {
            value("x-authentik-groups").replace('|', ",")
        } else {
            value("remote-groups").to_owned()
        };
        let (told, omitted) =
            (groups.split(',').count(), value("x-conclave-groups-omitted").parse::<usize>());
        assert_eq!(omitted, Ok(MOST_GROUPS - told), "{name}: {profile}: {groups}");
        assert!(groups.len() > 1_900 && groups.split(',').any(|group| group == "admins"), "{name}: {groups}");
        assert_eq!(value("x-conclave-assertion").is_empty(), assertion == "off", "{name}");
        assert_eq!(value("remote-user").is_empty(), profile == "authentik", "{name}");
        println!("{name}: profile {profile}, assertion {assertion}: {told} of {MOST_GROUPS} groups told");
    }
}

/// A client without a session sends long addresses while others send ordinary requests: none of theirs may fail.
async fn a_storm_of_long_requests_is_nobody_elses_trouble(
    name: &str,
    proxy: &Proxy,
    person: &reqwest::Client,
) {
    let over = Arc::new(AtomicBool::new(false));
    let others = [
        (person.clone(), proxy.url("/")),
        (proxy.browser(), format!("http://{ID_HOST}:{}/.well-known/openid-configuration", proxy.port)),
    ];
    let others: Vec<_> = others
        .into_iter()
        .map(|(browser, url)| tokio::spawn(ordinary_requests(browser, url, Arc::clone(&over))))
        .collect();
    let strangers: Vec<_> = (0..UNTRUSTED_CONNECTIONS)
        .map(|n| tokio::spawn(long_requests(proxy.browser(), proxy.url("/"), n)))
        .collect();
    let mut refused = Vec::new();
    for stranger in strangers {
        refused.extend(stranger.await.unwrap());
    }
    over.store(true, Ordering::Relaxed);
    for other in others {
        let (asked, failed) = other.await.unwrap();
        println!("{name}: {} of {asked} requests of others failed beside {STORM} long ones", failed.len());
        assert!(failed.is_empty() && asked > 5, "{name}: {} of {asked}: {failed:?}", failed.len());
    }
    assert!(refused.is_empty(), "{name}: the stranger was answered {refused:?}");
}

async fn ordinary_requests(
    browser: reqwest::Client,
    url: String,
    over: Arc<AtomicBool>,
) -> (usize, Vec<String>) {
    let (mut asked, mut failed) = (0, Vec::new());
    while !over.load(Ordering::Relaxed) || asked <= 5 {
        asked += 1;
        match browser.get(&url).header("accept", "text/html").send().await {
            Ok(reply) if reply.status() == 200 => {}
            Ok(reply) => failed.push(reply.status().to_string()),
            Err(error) => failed.push(error.to_string()),
        }
    }
    (asked, failed)
}

/// Sends requests, half of them longer than the return address may be; each must be redirected to the sign-in. Returns
/// the other statuses.
async fn long_requests(browser: reqwest::Client, url: String, n: usize) -> Vec<u16> {
    let mut refused = Vec::new();
    for turn in 0..STORM / UNTRUSTED_CONNECTIONS {
        let length = [900, 3_000, 5_500, 7_000][(n + turn) % 4];
        let long = format!("{url}?q={}", "x".repeat(length));
        let status = browser.get(long).header("accept", "text/html").send().await.unwrap().status().as_u16();
        if status != 302 {
            refused.push(status);
        }
    }
    refused
}

/// The visitor sees Conclave's page instead of the application, whatever the proxy does with a status.
async fn refusals_have_conclaves_pages(name: &str, proxy: &Proxy, person: &reqwest::Client, seen: &Seen) {
    seen.lock().unwrap().take();
    let reply = person.get(proxy.url("/admin/users")).header("accept", "text/html").send().await.unwrap();
    assert_eq!(reply.status(), 403, "{name}");
    let page = reply.text().await.unwrap();
    assert!(page.contains("id=\"forbidden\"") && page.contains("id=\"decision-id\""), "{name}: {page}");

    let stranger = proxy.browser();
    let posted =
        stranger.post(proxy.url("/")).header("accept", "text/html").body("x=1").send().await.unwrap();
    assert_eq!(posted.status(), 401, "{name}: a form that was sent is not sent away");
    let framed =
        stranger.get(proxy.url("/")).header("sec-fetch-mode", "navigate").header("sec-fetch-dest", "iframe");
    let framed = framed.header("accept", "text/html").send().await.unwrap();
    assert_eq!(framed.status(), 401, "{name}");
    assert!(framed.headers().get("x-frame-options").is_none(), "{name}");
    assert!(framed.text().await.unwrap().contains("target=\"_top\""), "{name}");
    let prefetched =
        stranger.get(proxy.url("/")).header("sec-purpose", "prefetch").header("accept", "text/html");
    assert_eq!(prefetched.send().await.unwrap().status(), 401, "{name}");
    assert!(seen.lock().unwrap().is_none(), "{name}");
}

/// A header that requests another method either does not arrive, or the rule about methods did not decide.
async fn no_header_changes_the_method_behind_the_check(name: &str, proxy: &Proxy, seen: &Seen) {
    let stranger = proxy.browser();
    for header in [
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "X_HTTP_Method_Override",
        "X.HTTP.Method",
    ] {
        seen.lock().unwrap().take();
        stranger.get(proxy.url("/public/a")).header(header, "DELETE").send().await.unwrap();
        if let Some((_, headers)) = seen.lock().unwrap().take() {
            let arrived = headers.values().flatten().any(|value| value == "DELETE");
            assert!(!arrived, "{name}: {header} arrived: {headers:?}");
        }
    }
}

/// An address with an escaped slash reaches the application unchanged if no rule reads paths.
async fn escaped_slashes_arrive(name: &str, proxy: &Proxy, person: &reqwest::Client, seen: &Seen) {
    seen.lock().unwrap().take();
    let reply = person.get(proxy.url("/api/queues/%2F/orders?q=%zz")).send().await.unwrap();
    assert_eq!(reply.status(), 200, "{name}");
    let (uri, _) = seen.lock().unwrap().take().unwrap();
    assert_eq!(uri, "/api/queues/%2F/orders?q=%zz", "{name}");
}

/// Two of three nodes are lost: the third reports it, and the proxy passes its page on.
async fn a_lost_quorum_has_a_page(name: &str, url: &str, person: &reqwest::Client) {
    let began = Instant::now();
    loop {
        let url = format!("{url}?{}", began.elapsed().as_millis());
        let reply = person.get(url).header("accept", "text/html").send().await.unwrap();
        let (status, page) = (reply.status().as_u16(), reply.text().await.unwrap());
        if status == 503 && page.contains("One moment, please") {
            return;
        }
        assert!(began.elapsed() < LIMIT, "{name}: {status}: {page}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_in_front_never_suffers_from_an_answer() {
    let demo = Demo::start(&[]);
    join_every_group(&demo).await;
    let (addr, seen) = application().await;
    let said = nginx_test(&demo.cluster.nodes, demo.own_port(0), addr);
    assert!(!said.contains("[warn]") && said.contains("test is successful"), "{said}");
    let mut proxies = Vec::new();
    for (port, name) in (demo.own_port(1)..).zip([
        "nginx",
        "Caddy",
        "HAProxy",
        "Envoy over HTTP",
        "Envoy over gRPC",
        "Traefik",
    ]) {
        let proxy = proxy_of(name, &demo, port, addr).await;
        let person = proxy.browser();
        let admin = &demo.cluster.admin;
        let (_, reply) =
            open_and_sign_in(&demo, &person, &proxy.url("/"), &admin.username, &admin.password).await;
        assert_eq!(reply.status(), 200, "{name}");
        escaped_slashes_arrive(name, &proxy, &person, &seen).await;
        set_policy(&demo);
        the_longest_answer_arrives(&demo, name, &proxy, &person, &seen).await;
        a_storm_of_long_requests_is_nobody_elses_trouble(name, &proxy, &person).await;
        refusals_have_conclaves_pages(name, &proxy, &person, &seen).await;
        no_header_changes_the_method_behind_the_check(name, &proxy, &seen).await;
        command(&demo, &["policy", "remove", "demo-app"]);
        proxies.push((name, proxy, person));
    }
    for node in demo.cluster.nodes.iter().take(2) {
        kill_9(demo.pid_of(node.id).expect("it runs"));
    }
    for (name, proxy, person) in &proxies {
        a_lost_quorum_has_a_page(name, &proxy.url("/"), person).await;
    }
    // No node is left: the proxy answers by itself, and with the configured page if it supports one.
    kill_9(demo.pid_of(demo.cluster.nodes[2].id).expect("it runs"));
    for (name, proxy, person) in proxies.iter().filter(|(name, ..)| matches!(*name, "nginx" | "HAProxy")) {
        a_lost_quorum_has_a_page(name, &proxy.url("/"), person).await;
        a_lost_quorum_has_a_page(name, &format!("http://{ID_HOST}:{}/", proxy.port), person).await;
    }
}
