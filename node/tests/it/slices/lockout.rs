//! A lock-out stops an attacker who guesses, and cannot be used against the owner of the account.

use std::net::{IpAddr, Ipv4Addr};

use axum::body::Body;
use conclave_proto::admin::v1::{self as pb, user_service_client::UserServiceClient};
use http::{Request, StatusCode};

use super::site::{Browser, PASSWORD, Page, Site, encoded};
use crate::admin::{by_operator, channel};

/// A sign-in from this address, by a form that was shown to this browser.
async fn attempt(site: &Site, from: IpAddr, browser: &mut Browser, username: &str, password: &str) -> Page {
    let page = site.get(browser, "/login").await;
    let (ticket, csrf) = (page.field("ticket"), page.field("csrf"));
    let form = [("ticket", ticket.as_str()), ("csrf", &csrf), ("username", username), ("password", password)];
    let request = Request::post("/login")
        .header("cookie", browser.header())
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from(encoded(&form)))
        .unwrap();
    site.send(&from.to_string(), request).await
}

async fn stranger(site: &Site, from: IpAddr, username: &str, password: &str) -> StatusCode {
    attempt(site, from, &mut Browser::default(), username, password).await.status
}

const fn at(n: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, n))
}

/// One address uses up its attempts.
async fn guess(site: &Site, from: IpAddr, username: &str) {
    for _ in 0..10 {
        assert_eq!(stranger(site, from, username, "wrong").await, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(stranger(site, from, username, PASSWORD).await, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn one_attacker_locks_out_their_own_address_alone() {
    let site = Site::open().await;
    // An account that does not exist behaves alike.
    for (username, right) in [("ada", StatusCode::SEE_OTHER), ("ghost", StatusCode::UNAUTHORIZED)] {
        guess(&site, at(1), username).await;
        assert_eq!(stranger(&site, at(2), username, PASSWORD).await, right, "{username}");
    }
}

#[tokio::test]
async fn users_who_sign_in_at_once_from_one_address_do_not_lock_each_other_out() {
    let site = Site::open().await;
    for round in 0..6 {
        let attempts = (0..5).map(|_| stranger(&site, at(9), "ada", PASSWORD));
        for status in futures_util::future::join_all(attempts).await {
            assert_eq!(status, StatusCode::SEE_OTHER, "round {round}");
        }
    }
}

#[tokio::test]
async fn many_attackers_lock_out_strangers_and_not_the_owners_browsers_and_addresses() {
    let site = Site::open().await;
    // A browser at home (whose forms come from 192.0.2.1), and the session that it leaves there.
    let mut home = Browser::default();
    site.sign_in_at(&mut home, "/", "ada", PASSWORD).await;
    for n in 1..=10 {
        guess(&site, at(n), "ada").await;
    }
    let index = site.node.cluster().view().index();
    assert_eq!(stranger(&site, at(99), "ada", PASSWORD).await, StatusCode::TOO_MANY_REQUESTS);
    for _ in 0..5 {
        stranger(&site, at(1), "ada", "wrong").await;
    }
    let grown = site.node.cluster().view().index() - index;
    assert!(grown <= 1, "an attack that is refused does not grow the log: {grown}");

    home.cookies.remove("conclave_session");
    let page = attempt(&site, at(99), &mut home, "ada", PASSWORD).await;
    assert_eq!(page.status, StatusCode::SEE_OTHER, "the owner's browser, wherever it is");
    // A new browser at an address from which the account has a session.
    for n in 1..=10 {
        assert_eq!(stranger(&site, at(n + 100), "ada", "wrong").await, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(stranger(&site, "192.0.2.1".parse().unwrap(), "ada", PASSWORD).await, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn strangers_guesses_by_username_and_by_address_are_one_count() {
    let site = Site::open().await;
    site.raise_level().await;
    super::names::address(&site, "ada", "ada@example.org", true).await;
    let names = ["ada", "ada@example.org"];
    for n in 1..=5 {
        for name in names {
            guess(&site, at(n), name).await;
        }
    }
    for name in names {
        assert_eq!(stranger(&site, at(99), name, PASSWORD).await, StatusCode::TOO_MANY_REQUESTS, "{name}");
    }
}

#[tokio::test]
async fn every_rescue_ends_a_lock_out() {
    let site = Site::open().await;
    let mut users = UserServiceClient::new(channel(&site.node));
    let mut home = Browser::default();
    site.sign_in_at(&mut home, "/", "ada", PASSWORD).await;
    home.cookies.remove("conclave_session");
    for rescue in ["unlock", "password", "enable", "recovery"] {
        // The owner mistyped in the known browser, and an attacker has used up all attempts.
        for _ in 0..10 {
            attempt(&site, at(1), &mut home, "ada", "wrong").await;
        }
        guess(&site, at(2), "ada").await;
        let page = attempt(&site, at(1), &mut home, "ada", PASSWORD).await;
        assert_eq!(page.status, StatusCode::TOO_MANY_REQUESTS, "{rescue}");
        let user = "ada".to_owned();
        match rescue {
            "unlock" => {
                let command = pb::UnlockUserRequest { user };
                users.unlock_user(by_operator(&site.node, command)).await.unwrap();
            }
            "password" => {
                let password = PASSWORD.to_owned();
                let command = pb::SetPasswordRequest { user, password, ..Default::default() };
                users.set_password(by_operator(&site.node, command)).await.unwrap();
            }
            "enable" => {
                for disabled in [true, false] {
                    let command = pb::UpdateUserRequest {
                        user: user.clone(),
                        disabled: Some(disabled),
                        ..Default::default()
                    };
                    users.update_user(by_operator(&site.node, command)).await.unwrap();
                }
            }
            _ => super::recovery::let_back_in(&site, "ada", PASSWORD).await,
        }
        for (from, browser) in [(at(1), &mut home), (at(2), &mut Browser::default())] {
            let page = attempt(&site, from, browser, "ada", PASSWORD).await;
            assert_eq!(page.status, StatusCode::SEE_OTHER, "{rescue} from {from}");
        }
        // No known browser or address remains of that sign-in, so the next attempts are from unknown origins again.
        let command =
            pb::UpdateUserRequest { user: "ada".into(), disabled: Some(true), ..Default::default() };
        users.update_user(by_operator(&site.node, command)).await.unwrap();
        let command =
            pb::UpdateUserRequest { user: "ada".into(), disabled: Some(false), ..Default::default() };
        users.update_user(by_operator(&site.node, command)).await.unwrap();
    }
}
