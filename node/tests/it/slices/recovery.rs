//! Recovery when no administrator can sign in.

use std::time::Duration;

use conclave_auth::recovery;
use conclave_proto::command::v1::{UpdateUser, command::Body};
use http::StatusCode;

use super::site::{Browser, PASSWORD, Page, Site};

const NEW: &str = "another correct horse";

fn link(site: &Site, username: &str) -> String {
    made(site, username, false)
}

fn made(site: &Site, username: &str, create: bool) -> String {
    let auth = site.node.auth();
    recovery::make(auth.cluster_keys(), auth.runtime(), username, create).unwrap()
}

async fn used(site: &Site, link: &str, password: &str, again: &str) -> Page {
    let mut browser = Browser::default();
    let page = site.get(&mut browser, &format!("/recover?link={link}")).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text);
    let (ticket, csrf) = (page.field("ticket"), page.field("csrf"));
    let form =
        [("ticket", ticket.as_str()), ("csrf", csrf.as_str()), ("password", password), ("again", again)];
    site.post(&mut browser, "/recover", &form).await
}

/// Uses a new recovery link of this user.
pub(super) async fn let_back_in(site: &Site, username: &str, password: &str) {
    let done = used(site, &link(site, username), password, password).await;
    assert_eq!(done.status, StatusCode::SEE_OTHER, "{}", done.text);
}

fn is_admin(site: &Site, username: &str) -> bool {
    let state = site.node.auth().cluster().view();
    let admins = state.group_by_name("admins").map(|group| group.id);
    state
        .user_by_name(username)
        .is_some_and(|user| !user.disabled && admins.is_some_and(|admins| user.groups.contains(&admins)))
}

#[tokio::test]
async fn a_link_lets_somebody_back_in_once_and_ends_their_sessions() {
    let site = Site::open().await;
    let mut before = Browser::default();
    site.sign_in_at(&mut before, "/", "ada", PASSWORD).await;
    let link = link(&site, "ada");

    let differing = used(&site, &link, NEW, "something else").await;
    assert_eq!((differing.status, is_admin(&site, "ada")), (StatusCode::BAD_REQUEST, false));
    assert_eq!(used(&site, &link, "short", "short").await.status, StatusCode::BAD_REQUEST);

    let done = used(&site, &link, NEW, NEW).await;
    assert_eq!((done.status, done.location().as_str()), (StatusCode::SEE_OTHER, "/login"));
    assert!(is_admin(&site, "ada"));
    assert_eq!(site.get(&mut before, "/").await.location(), "/login", "sessions end with the old password");
    let page = site.sign_in_at(&mut Browser::default(), "/", "ada", NEW).await;
    assert_eq!(page.status, StatusCode::SEE_OTHER);

    let again = used(&site, &link, "a thief's password", "a thief's password").await;
    assert_eq!(again.status, StatusCode::CONFLICT, "{}", again.text);
    let page = site.sign_in_at(&mut Browser::default(), "/", "ada", NEW).await;
    assert_eq!(page.status, StatusCode::SEE_OTHER, "the second use changed nothing");
}

#[tokio::test]
async fn whoever_is_gone_or_disabled_is_an_administrator_afterwards() {
    let site = Site::open().await;
    let user_id = site.node.auth().cluster().view().user_by_name("ada").unwrap().id.to_vec();
    let command = UpdateUser { user_id, disabled: Some(true), ..UpdateUser::default() };
    site.node.propose(Body::UpdateUser(command)).await.unwrap();
    for name in ["newcomer", "ada"] {
        let done = used(&site, &made(&site, name, name == "newcomer"), NEW, NEW).await;
        assert_eq!(done.status, StatusCode::SEE_OTHER, "{name}: {}", done.text);
        assert!(is_admin(&site, name), "{name}");
        let page = site.sign_in_at(&mut Browser::default(), "/", name, NEW).await;
        assert_eq!(page.status, StatusCode::SEE_OTHER);
    }
}

#[tokio::test]
async fn a_mistyped_name_does_not_become_an_administrator() {
    let site = Site::open().await;
    let page = site.get(&mut Browser::default(), &format!("/recover?link={}", link(&site, "adaa"))).await;
    assert_eq!(page.status, StatusCode::NOT_FOUND, "{}", page.text);
    assert!(page.text.contains("There is no account named adaa"), "{}", page.text);
    let mut browser = Browser::default();
    let asked = site.get(&mut browser, &format!("/recover?link={}", made(&site, "adaa", true))).await;
    let (ticket, csrf) = (link(&site, "adaa"), asked.field("csrf"));
    let form = [("ticket", ticket.as_str()), ("csrf", csrf.as_str()), ("password", NEW), ("again", NEW)];
    let posted = site.post(&mut browser, "/recover", &form).await;
    assert!(!is_admin(&site, "adaa") && posted.status != StatusCode::SEE_OTHER, "{}", posted.text);
}

#[tokio::test]
async fn a_link_that_is_old_damaged_or_made_with_another_secret_is_refused() {
    let site = Site::open().await;
    let good = link(&site, "ada");
    let mut damaged = good.clone();
    damaged.replace_range(40..41, if &good[40..41] == "A" { "B" } else { "A" });
    for bad in ["", "x", damaged.as_str()] {
        let page = site.get(&mut Browser::default(), &format!("/recover?link={bad}")).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST, "{bad}");
        assert!(page.text.contains("bad_link"), "{}", page.text);
    }
    let mut browser = Browser::default();
    let page = site.get(&mut browser, &format!("/recover?link={good}")).await;
    let form = [("ticket", good.as_str()), ("csrf", "forged"), ("password", NEW), ("again", NEW)];
    assert_eq!(site.post(&mut browser, "/recover", &form).await.status, StatusCode::FORBIDDEN);
    assert_eq!(page.status, StatusCode::OK);

    site.node.clock().advance(Duration::from_mins(16));
    let page = site.get(&mut Browser::default(), &format!("/recover?link={good}")).await;
    assert!(page.text.contains("link_expired"), "{}", page.text);
}
