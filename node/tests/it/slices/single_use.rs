//! One-time values succeed once although 32 requests use one at the same moment, at two nodes, while the leader dies:
//! exactly one success. The responses of a dead node are ignored; those of the two survivors are all checked.

use axum::body::Body;
use conclave_crypto::jwk::Alg;
use conclave_node::testing::TestNode;
use conclave_proto::command::v1::SigningAlgorithm;
use futures_util::future::join_all;
use http::{Request, StatusCode};

use super::{
    oidc_assertions::{asserted, assertion, client_key, signing_client},
    oidc_devices, oidc_dpop,
    oidc_dpop::{Prover, TOKEN, USERINFO},
    oidc_requests,
    oidc_tokens::register,
    site::{Browser, PASSWORD, Page, Site},
};

/// The number of concurrent uses.
const AT_ONCE: usize = 32;

/// Three nodes with the contents of a site: the leader, and the two survivors.
struct Trio {
    leader: Site,
    left: [Site; 2],
}

impl Trio {
    async fn open() -> Self {
        let mut sites: Vec<Site> = TestNode::start_cluster(3).await.into_iter().map(Site::of).collect();
        let leads = sites.iter().position(|site| site.node.cluster().is_leader()).unwrap();
        let leader = sites.swap_remove(leads);
        leader.seed().await;
        let left = <[Site; 2]>::try_from(sites).unwrap_or_else(|_| unreachable!("three nodes"));
        Self { leader, left }
    }

    /// All requests at once, at the two survivors; meanwhile the leader ends as by a crash.
    async fn all_at_once(&self, one: impl AsyncFn(usize) -> Page) -> Vec<Page> {
        // Both survivors have the value: catching up is not under test here.
        let index = self.leader.node.cluster().view().index();
        for site in &self.left {
            site.node.cluster().view_at(index).await.unwrap();
        }
        let uses = join_all((0..AT_ONCE).map(|n| one(n)));
        let dying = async {
            // Some requests are in progress by then, some are not.
            for _ in 0..AT_ONCE {
                tokio::task::yield_now().await;
            }
            self.leader.node.cluster().halt().await;
        };
        tokio::join!(uses, dying).0
    }

    fn at(&self, n: usize) -> &Site {
        &self.left[n % 2]
    }
}

fn succeeded(pages: &[Page]) -> usize {
    pages.iter().filter(|page| page.status == StatusCode::OK).count()
}

fn statuses(pages: &[Page]) -> Vec<(u16, &str)> {
    pages.iter().map(|page| (page.status.as_u16(), page.text.as_str())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code() {
    let trio = Trio::open().await;
    let code = trio.leader.code("web", &[]).await;
    let pages = trio.all_at_once(async |n| trio.at(n).redeem("web", &code).await).await;
    assert_eq!(succeeded(&pages), 1, "{:?}", statuses(&pages));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_token_has_one_child() {
    let trio = Trio::open().await;
    let code = trio.leader.code("web", &[("scope", "openid offline_access")]).await;
    let first = trio.leader.redeem("web", &code).await.json();
    let first = first["refresh_token"].as_str().unwrap().to_owned();
    let pages = trio.all_at_once(async |n| trio.at(n).refresh(&first).await).await;
    let given: Vec<_> = pages.iter().filter(|page| page.status == StatusCode::OK).map(Page::json).collect();
    let mut children: Vec<&str> =
        given.iter().map(|tokens| tokens["refresh_token"].as_str().unwrap()).collect();
    children.dedup();
    assert_eq!(
        children.len(),
        1,
        "a lost answer is repeated, a second child is never made: {:?}",
        statuses(&pages)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_code() {
    let trio = Trio::open().await;
    let started = oidc_devices::start(&trio.leader).await;
    let code = started["device_code"].as_str().unwrap();
    let mut browser = Browser::default();
    let page = oidc_devices::asked(&trio.leader, &mut browser, &started, "ada").await;
    oidc_devices::answer(&trio.leader, &mut browser, &page, "allow").await;
    let pages = trio.all_at_once(async |n| oidc_devices::poll(trio.at(n), "web", code).await).await;
    assert_eq!(succeeded(&pages), 1, "{:?}", statuses(&pages));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pushed_request() {
    let trio = Trio::open().await;
    let pushed = oidc_requests::push(&trio.leader, Some("web"), &[]).await;
    let uri = pushed.json()["request_uri"].as_str().unwrap().to_owned();
    // Every browser is at the login page of one request before the first one signs in.
    let mut forms = Vec::new();
    for n in 0..AT_ONCE {
        let mut browser = Browser::default();
        let page = trio.at(n).get(&mut browser, &oidc_requests::named("web", &uri)).await;
        let page = trio.at(n).get(&mut browser, &page.location()).await;
        forms.push((browser.header(), page.field("ticket"), page.field("csrf")));
    }
    let pages = trio
        .all_at_once(async |n| {
            let (cookies, ticket, csrf) = &forms[n];
            let form =
                [("ticket", ticket.as_str()), ("csrf", csrf), ("username", "ada"), ("password", PASSWORD)];
            let request = Request::post("/login")
                .header("cookie", cookies)
                .header("content-type", "application/x-www-form-urlencoded")
                .body(Body::from(super::site::encoded(&form)))
                .unwrap();
            trio.at(n).send("192.0.2.1", request).await
        })
        .await;
    let codes =
        pages.iter().filter(|page| page.headers.contains_key("location") && page.parameter("code").is_some());
    assert_eq!(codes.count(), 1, "{:?}", statuses(&pages));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_assertion() {
    let trio = Trio::open().await;
    let key = client_key(Alg::EdDsa);
    register(&trio.leader, signing_client("signs", &[&key], SigningAlgorithm::Eddsa)).await;
    let one = key.sign("JWT", &assertion("signs", "once")).unwrap();
    let pages = trio.all_at_once(async |n| asserted(trio.at(n), &one, &[]).await).await;
    assert_eq!(succeeded(&pages), 1, "{:?}", statuses(&pages));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_of_a_key() {
    let trio = Trio::open().await;
    let key = Prover::at(&trio.leader).await;
    let code = trio.leader.code("spa", &[]).await;
    let tokens = oidc_dpop::redeem(&trio.leader, &code, Some(key.proof("POST", TOKEN, None))).await.json();
    let access = tokens["access_token"].as_str().unwrap();
    let proof = [key.proof("GET", USERINFO, Some(access))];
    let pages =
        trio.all_at_once(async |n| oidc_dpop::userinfo(trio.at(n), "DPoP", access, &proof).await).await;
    assert_eq!(succeeded(&pages), 1, "{:?}", statuses(&pages));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_used_before_the_crash_is_used_after_it() {
    let trio = Trio::open().await;
    let code = trio.leader.code("web", &[]).await;
    assert_eq!(trio.leader.redeem("web", &code).await.status, StatusCode::OK);
    trio.leader.node.cluster().halt().await;
    for n in 0..4 {
        let page = trio.at(n).redeem("web", &code).await;
        assert_eq!(page.json()["error"], "invalid_grant", "{}", page.text);
    }
}
