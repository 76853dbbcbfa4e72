//! Sign-in at another provider: the actions of users, and the attempts of a provider, another browser or an attacker.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use conclave_node::testing::{START_MS, TestNode};
use conclave_proto::command::v1::{
    CreateUpstream, DeleteUpstream, DeleteUser, RenameUser, UpdateUpstream, UpdateUser, Upstream,
    UpstreamAdmission, UpstreamClaims, UpstreamRule, command::Body,
};
use conclave_state::ids::UserId;
use http::StatusCode;
use serde_json::{Value, json};

use super::{
    forward_auth::{Check, cookie_of},
    site::{Browser, PASSWORD, Page, Site},
    upstream_provider::{Provider, Signed, key},
};

const SESSION: &str = "conclave_session";

fn loopback(settings: &mut conclave_auth::Settings) {
    settings.outbound.allow = vec!["127.0.0.1".parse().unwrap()];
}

fn rule(admission: UpstreamAdmission, domains: &[&str]) -> UpstreamRule {
    UpstreamRule {
        admission: admission.into(),
        domains: domains.iter().map(ToString::to_string).collect(),
        ..UpstreamRule::default()
    }
}

/// Adds this provider as `name`.
async fn add(site: &Site, name: &str, provider: &Provider) {
    let upstream = Upstream {
        name: name.into(),
        display_name: format!("The {name}"),
        issuer: provider.url.clone(),
        client_id: "conclave here".into(),
        sealed_secret: site.node.auth().seal_upstream_secret(name, "s:cret").unwrap(),
        scopes: vec!["openid".into(), "email".into()],
        ..Upstream::default()
    };
    let command = CreateUpstream { upstream: Some(upstream) };
    site.node.propose(Body::CreateUpstream(command)).await.unwrap();
}

async fn open() -> (Site, Arc<Provider>) {
    let site = Site::of(TestNode::start_with(loopback).await);
    site.seed().await;
    let provider = Provider::start().await;
    add(&site, "corp", &provider).await;
    (site, provider)
}

async fn change(site: &Site, change: impl FnOnce(&mut UpdateUpstream)) {
    let mut command = UpdateUpstream { name: "corp".into(), ..UpdateUpstream::default() };
    change(&mut command);
    site.node.propose(Body::UpdateUpstream(command)).await.unwrap();
}

async fn admits(site: &Site, admission: UpstreamAdmission, domains: &[&str]) {
    change(site, |command| command.rule = Some(rule(admission, domains))).await;
}

/// The address of the link with this id.
fn link(page: &Page, id: &str) -> Option<String> {
    let start = page.text.find(&format!("id=\"{id}\" href=\""))?;
    let href = page.text[start..].split("href=\"").nth(1)?.split('"').next()?;
    Some(href.replace("&#x2f;", "/").replace("&amp;", "&"))
}

impl Site {
    async fn follow(&self, browser: &mut Browser, path: &str) -> Page {
        let mut page = self.get(browser, path).await;
        while page.status.is_redirection() && page.location().starts_with('/') {
            let next = page.location();
            page = self.get(browser, &next).await;
        }
        page
    }

    /// The provider's address for a login that begins at `path`.
    async fn start_upstream_login(&self, browser: &mut Browser, path: &str, name: &str) -> String {
        let page = self.follow(browser, path).await;
        let start = link(&page, &format!("upstream-{name}")).unwrap_or_else(|| panic!("{}", page.text));
        let away = self.get(browser, &start).await;
        assert_eq!(away.status, StatusCode::SEE_OTHER, "{}", away.text);
        away.location()
    }

    /// Redirects to the provider and back.
    async fn fly(&self, browser: &mut Browser, path: &str, provider: &Provider) -> Page {
        let address = self.start_upstream_login(browser, path, "corp").await;
        let query = provider.allows(&address);
        self.get(browser, &format!("/upstream/corp/callback?{query}")).await
    }

    /// Ada signs in with her password and links her identity at the provider.
    async fn link_ada(&self, provider: &Provider) -> Browser {
        let mut browser = Browser::default();
        self.sign_in_at(&mut browser, "/", "ada", PASSWORD).await;
        let page = self.link(&mut browser, provider).await;
        assert_eq!((page.status, page.location().as_str()), (StatusCode::SEE_OTHER, "/"), "{}", page.text);
        browser
    }

    async fn link(&self, browser: &mut Browser, provider: &Provider) -> Page {
        let home = self.get(browser, "/").await;
        let away = self.get(browser, &link(&home, "link-corp").unwrap()).await;
        if !away.location().starts_with(&provider.url) {
            return away;
        }
        let query = provider.allows(&away.location());
        self.get(browser, &format!("/upstream/corp/callback?{query}")).await
    }

    fn people(&self) -> usize {
        self.node.cluster().view().user_count()
    }
}

fn error_of(page: &Page) -> String {
    page.shown("error-code")
}

fn claims_of(token: &str) -> Value {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let claims = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap()
}

#[tokio::test]
async fn who_linked_an_identity_signs_in_with_it_and_nothing_is_claimed_that_is_not_known() {
    let (site, provider) = open().await;
    let mut browser = site.link_ada(&provider).await;
    let home = site.get(&mut browser, "/").await;
    assert_eq!(home.shown("identity-corp"), "sub-1");

    let mut other = Browser::default();
    let url = Site::authorize_url("web", &[("acr_values", "1")]);
    let page = site.fly(&mut other, &url, &provider).await;
    assert_eq!(page.parameter("state").as_deref(), Some("s t"), "{}", page.text);
    let code = page.parameter("code").unwrap();
    let tokens = site.redeem("web", &code).await.json();
    let claims = claims_of(tokens["id_token"].as_str().unwrap());
    assert_eq!((&claims["amr"], claims.get("acr")), (&json!(["fed"]), None));
    assert_eq!(site.get(&mut other, "/").await.shown("account"), "ada");
    // The document is fetched once, the keys once.
    assert_eq!(provider.documents_asked.load(Ordering::SeqCst), 1);
    assert_eq!(provider.keys_asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_id_token_that_is_not_good_in_every_way_signs_nobody_in() {
    let (site, provider) = open().await;
    site.link_ada(&provider).await;
    let now = START_MS / 1_000;
    for (name, value) in [
        ("nonce", json!("another")),
        ("iss", json!("https://evil.test")),
        ("aud", json!("somebody else")),
        ("aud", json!(["conclave here", "somebody else"])),
        ("azp", json!("somebody else")),
        ("exp", json!(now - 61)),
        ("iat", json!(now + 61)),
        ("sub", json!("")),
    ] {
        provider.claims(name, value.clone());
        let mut browser = Browser::default();
        let page = site.fly(&mut browser, "/login", &provider).await;
        assert_eq!(
            (page.status, error_of(&page).as_str()),
            (StatusCode::BAD_GATEWAY, "upstream_token"),
            "{name}"
        );
        assert!(!browser.cookies.contains_key(SESSION), "{name} = {value}");
        provider.says(|script| script.claims.clear());
    }
    for signed in [Signed::Unsigned, Signed::WithThePublicKey, Signed::ByAnother, Signed::ByANewKey] {
        provider.says(|script| script.signed = signed);
        let mut browser = Browser::default();
        let page = site.fly(&mut browser, "/login", &provider).await;
        assert_eq!(error_of(&page), "upstream_token", "{signed:?}");
        assert!(!browser.cookies.contains_key(SESSION), "{signed:?}");
    }
    provider.says(|script| script.signed = Signed::Well);
    let mut browser = Browser::default();
    assert_eq!(site.fly(&mut browser, "/login", &provider).await.location(), "/");
}

#[tokio::test]
async fn a_provider_may_change_its_keys_and_cannot_be_made_to_be_asked_all_the_time() {
    let (site, provider) = open().await;
    site.link_ada(&provider).await;
    let asked = || provider.keys_asked.load(Ordering::SeqCst);
    assert_eq!(asked(), 1);
    // A token signed with a key that is not published: the keys are fetched once more, then not for a while.
    provider.says(|script| script.signed = Signed::ByANewKey);
    site.node.clock().advance(Duration::from_secs(31));
    for _ in 0..3 {
        let page = site.fly(&mut Browser::default(), "/login", &provider).await;
        assert_eq!(error_of(&page), "upstream_token");
    }
    assert_eq!(asked(), 2);
    // Once published, the key is accepted as soon as the keys may be fetched.
    provider.says(|script| script.published.push(key(2).public_jwk()));
    site.node.clock().advance(Duration::from_secs(31));
    assert_eq!(site.fly(&mut Browser::default(), "/login", &provider).await.location(), "/");
    assert_eq!(asked(), 3);
}

#[tokio::test]
async fn a_callback_counts_once_and_only_in_the_browser_that_set_out() {
    let (site, provider) = open().await;
    site.link_ada(&provider).await;
    let mut browser = Browser::default();
    let address = site.start_upstream_login(&mut browser, "/login", "corp").await;
    let callback = format!("/upstream/corp/callback?{}", provider.allows(&address));

    let mut other = Browser::default();
    site.get(&mut other, "/login").await;
    for stranger in [&mut other, &mut Browser::default()] {
        let page = site.get(stranger, &callback).await;
        assert_eq!(error_of(&page), "other_browser");
        assert!(!stranger.cookies.contains_key(SESSION));
    }
    assert_eq!(provider.codes_asked.load(Ordering::SeqCst), 1, "only the link was redeemed so far");

    let before = Browser { cookies: browser.cookies.clone() };
    assert_eq!(site.get(&mut browser, &callback).await.location(), "/");
    let mut thief = before;
    let again = site.get(&mut thief, &callback).await;
    assert!(again.shown("error").contains("sent before"), "a fresh form: {}", again.text);
    assert!(!thief.cookies.contains_key(SESSION));
    // A browser that is already signed in is redirected to its target.
    assert_eq!(site.get(&mut browser, &callback).await.location(), "/");

    let mut late = Browser::default();
    let address = site.start_upstream_login(&mut late, "/login", "corp").await;
    let query = provider.allows(&address);
    site.node.clock().advance(Duration::from_hours(2));
    let page = site.get(&mut late, &format!("/upstream/corp/callback?{query}")).await;
    assert_eq!(error_of(&page), "ticket_expired");
    for garbage in ["", "state=", "state=x&code=c0de", "code=c0de"] {
        let page = site.get(&mut late, &format!("/upstream/corp/callback?{garbage}")).await;
        assert_eq!(error_of(&page), "bad_ticket", "{garbage}");
    }
}

#[tokio::test]
async fn an_answer_of_another_provider_than_was_asked_is_refused() {
    let (site, provider) = open().await;
    let evil = Provider::start().await;
    add(&site, "evil", &evil).await;
    site.link_ada(&provider).await;
    let mut browser = Browser::default();
    let address = site.start_upstream_login(&mut browser, "/login", "corp").await;
    let query = provider.allows(&address);
    // At the address of the other provider, or with its name as `iss`.
    let page = site.get(&mut browser, &format!("/upstream/evil/callback?{query}")).await;
    assert_eq!(error_of(&page), "upstream_mix_up");
    let iss = super::site::encoded(&[("iss", &evil.url)]);
    let page = site.get(&mut browser, &format!("/upstream/corp/callback?{query}&{iss}")).await;
    assert_eq!(error_of(&page), "upstream_mix_up");
    assert_eq!(evil.codes_asked.load(Ordering::SeqCst), 0, "no code is shown to it");
    let iss = super::site::encoded(&[("iss", &provider.url)]);
    let page = site.get(&mut browser, &format!("/upstream/corp/callback?{query}&{iss}")).await;
    assert_eq!(page.location(), "/", "{}", page.text);
    // A provider that announces `iss` in responses must send it.
    evil.says(|s| {
        drop(s.document.insert("authorization_response_iss_parameter_supported".into(), json!(true)))
    });
    let mut browser = Browser::default();
    site.node.clock().advance(Duration::from_hours(1));
    let address = site.start_upstream_login(&mut browser, "/login", "evil").await;
    let page = site.get(&mut browser, &format!("/upstream/evil/callback?{}", evil.allows(&address))).await;
    assert_eq!(error_of(&page), "upstream_mix_up");
}

#[tokio::test]
async fn a_provider_that_is_down_says_no_or_describes_another_is_a_page_and_not_a_session() {
    let (site, provider) = open().await;
    site.link_ada(&provider).await;
    for (error, expected) in [
        ("access_denied", "upstream_denied"),
        ("server_error", "upstream_answer"),
        ("<script>", "upstream_answer"),
    ] {
        let mut browser = Browser::default();
        let address = site.start_upstream_login(&mut browser, "/login", "corp").await;
        let query =
            provider.allows(&address).replace("code=c0de", &super::site::encoded(&[("error", error)]));
        let page = site.get(&mut browser, &format!("/upstream/corp/callback?{query}")).await;
        assert_eq!(error_of(&page), expected);
        assert!(!page.text.contains("<script>"));
    }
    let other = Provider::start().await;
    other.says(|script| drop(script.document.insert("issuer".into(), json!("https://evil.test"))));
    add(&site, "other", &other).await;
    let start = |page: &Page, name: &str| link(page, &format!("upstream-{name}")).unwrap();
    let mut browser = Browser::default();
    let login = site.get(&mut browser, "/login").await;
    assert_eq!(error_of(&site.get(&mut browser, &start(&login, "other")).await), "upstream_answer");

    let address = site.start_upstream_login(&mut browser, "/login", "corp").await;
    let query = provider.allows(&address);
    provider.stop().await;
    let page = site.get(&mut browser, &format!("/upstream/corp/callback?{query}")).await;
    assert_eq!((page.status, error_of(&page).as_str()), (StatusCode::BAD_GATEWAY, "upstream_unreachable"));
    assert_eq!(error_of(&site.get(&mut browser, "/upstream/nobody/start?ticket=x").await), "bad_ticket");
    site.node.propose(Body::DeleteUpstream(DeleteUpstream { name: "other".into() })).await.unwrap();
    assert_eq!(error_of(&site.get(&mut browser, &start(&login, "other")).await), "upstream_unknown");
}

#[tokio::test]
async fn an_address_never_leads_to_a_person_and_somebody_new_comes_in_only_as_admitted() {
    let (site, provider) = open().await;
    let ada = site.node.cluster().view().user_by_name("ada").unwrap().id;
    let command = UpdateUser {
        user_id: ada.to_vec(),
        email: Some("ada@corp.test".into()),
        email_verified: Some(true),
        ..UpdateUser::default()
    };
    site.node.propose(Body::UpdateUser(command)).await.unwrap();
    site.raise_level().await;
    let people = site.people();
    let fly = async |verified: Value| {
        provider.claims("email", json!("ada@corp.test"));
        provider.claims("preferred_username", json!("ada"));
        provider.claims("email_verified", verified);
        let mut browser = Browser::default();
        let page = site.fly(&mut browser, "/login", &provider).await;
        (page, browser)
    };
    for (admission, domains, verified) in [
        (UpstreamAdmission::None, vec![], json!(true)),
        (UpstreamAdmission::Domains, vec!["corp.test"], json!(false)),
        (UpstreamAdmission::Domains, vec!["corp.test"], json!(null)),
        (UpstreamAdmission::Domains, vec!["other.test"], json!(true)),
    ] {
        admits(&site, admission, &domains).await;
        let (page, browser) = fly(verified).await;
        assert_eq!((page.status, error_of(&page).as_str()), (StatusCode::FORBIDDEN, "upstream_stranger"));
        assert!(!browser.cookies.contains_key(SESSION));
    }
    assert_eq!(site.people(), people);
    // Once admitted, it is a new user under another name, not the ada who has that address.
    for (admission, domains, sub) in
        [(UpstreamAdmission::Domains, vec!["corp.test"], "s1"), (UpstreamAdmission::Any, vec![], "s2")]
    {
        admits(&site, admission, &domains).await;
        provider.claims("sub", json!(sub));
        let (page, mut browser) = fly(json!(true)).await;
        assert_eq!(page.location(), "/", "{}", page.text);
        let account = site.get(&mut browser, "/").await.shown("account");
        assert!(account.starts_with("ada-"), "{account}");
        let state = site.node.cluster().view();
        let made = state.user_by_name(&account).unwrap();
        assert_eq!((made.email.as_str(), made.groups.len()), ("", 0), "an address belongs to one user");
        assert!(state.password(made.id).is_none());
        // The next time it is that user.
        let (_, mut again) = fly(json!(true)).await;
        assert_eq!(site.get(&mut again, "/").await.shown("account"), account);
    }
    assert_eq!(site.people(), people + 2);
    assert_eq!(site.node.cluster().view().identities_of(ada).count(), 0);
}

#[tokio::test]
async fn a_newcomer_gets_no_name_that_applications_or_users_know() {
    let (site, provider) = open().await;
    site.raise_level().await;
    admits(&site, UpstreamAdmission::Any, &[]).await;
    site.node.create_user("boss", PASSWORD, &["admins"]).await;
    let gone = site.node.create_user("gone", PASSWORD, &[]).await;
    site.node.propose(Body::DeleteUser(DeleteUser { user_id: gone.to_vec() })).await.unwrap();
    let bob = site.node.cluster().view().user_by_name("bob").unwrap().id;
    let command = RenameUser { user_id: bob.to_vec(), username: "robert".into(), force: false };
    site.node.propose(Body::RenameUser(command)).await.unwrap();
    let is_now = |sub: &str| {
        provider.claims("sub", json!(sub));
        provider.says(|script| script.userinfo = json!({ "sub": sub }));
    };
    for (n, wanted) in ["admin", "Administrator", "root", "boss", "gone", "bob"].into_iter().enumerate() {
        is_now(&format!("s{n}"));
        provider.claims("preferred_username", json!(wanted));
        let mut browser = Browser::default();
        let page = site.fly(&mut browser, "/login", &provider).await;
        assert_eq!(page.location(), "/", "{}", page.text);
        let account = site.get(&mut browser, "/").await.shown("account");
        assert!(account.starts_with(&format!("{}-", wanted.to_lowercase())), "{account}");
    }
    // A name without a special meaning is given as it is, in one form.
    is_now("fresh");
    provider.claims("preferred_username", json!("fresh"));
    provider.claims("name", json!("Jose\u{301}"));
    let mut browser = Browser::default();
    site.fly(&mut browser, "/login", &provider).await;
    assert_eq!(site.get(&mut browser, "/").await.shown("account"), "fresh");
    let state = site.node.cluster().view();
    assert_eq!(state.user_by_name("fresh").unwrap().display_name, "Jos\u{e9}");
}

#[tokio::test]
async fn an_address_that_nobody_proved_is_not_told_to_proxies() {
    let (site, provider) = open().await;
    let user_id = site.node.cluster().view().user_by_name("ada").unwrap().id.to_vec();
    let told = async |email_verified| {
        let command = UpdateUser {
            user_id: user_id.clone(),
            email: Some("boss@corp.test".into()),
            email_verified: Some(email_verified),
            ..UpdateUser::default()
        };
        site.node.propose(Body::UpdateUser(command)).await.unwrap();
        let cookie = cookie_of(&site, "ada").await.unwrap_or_else(|page| panic!("{}", page.text));
        Check::of("traefik").send(&site, &cookie).await.headers["remote-email"].to_str().unwrap().to_owned()
    };
    assert_eq!(told(false).await, "boss@corp.test", "as the administrator wrote it down");
    site.link_ada(&provider).await;
    assert_eq!(told(false).await, "", "it may be what the provider says");
    assert_eq!(told(true).await, "boss@corp.test");
}

#[tokio::test]
async fn an_address_that_only_userinfo_tells_counts_if_it_is_about_the_same_subject() {
    let (site, provider) = open().await;
    admits(&site, UpstreamAdmission::Domains, &["corp.test"]).await;
    let says = |sub: &str| json!({"sub": sub, "email": "new@corp.test", "email_verified": true});
    provider.says(|script| script.userinfo = says("sub-2"));
    let page = site.fly(&mut Browser::default(), "/login", &provider).await;
    assert_eq!(error_of(&page), "upstream_answer");
    provider.says(|script| script.userinfo = says("sub-1"));
    let mut browser = Browser::default();
    site.fly(&mut browser, "/login", &provider).await;
    assert_eq!(site.get(&mut browser, "/").await.shown("account"), "new");
}

#[tokio::test]
async fn an_identity_is_one_persons_and_a_subject_means_nothing_at_another_provider() {
    let (site, provider) = open().await;
    site.link_ada(&provider).await;
    let mut bob = Browser::default();
    site.sign_in_at(&mut bob, "/", "bob", PASSWORD).await;
    let page = site.link(&mut bob, &provider).await;
    assert_eq!((page.status, error_of(&page).as_str()), (StatusCode::CONFLICT, "upstream_identity_taken"));
    let other = Provider::start().await;
    add(&site, "other", &other).await;
    let mut browser = Browser::default();
    let address = site.start_upstream_login(&mut browser, "/login", "other").await;
    let page = site.get(&mut browser, &format!("/upstream/other/callback?{}", other.allows(&address))).await;
    assert_eq!(error_of(&page), "upstream_stranger");
}

#[tokio::test]
async fn linking_needs_a_recent_proof_and_the_same_session_at_the_end() {
    let (site, provider) = open().await;
    let mut browser = Browser::default();
    site.sign_in_at(&mut browser, "/", "ada", PASSWORD).await;
    let home = site.get(&mut browser, "/").await;
    let away = site.get(&mut browser, &link(&home, "link-corp").unwrap()).await.location();
    let callback = format!("/upstream/corp/callback?{}", provider.allows(&away));
    // Bob signs in between.
    let again = Site::authorize_url("web", &[("prompt", "login")]);
    site.sign_in_at(&mut browser, &again, "bob", PASSWORD).await;
    assert_eq!(error_of(&site.get(&mut browser, &callback).await), "other_browser");
    assert_eq!(site.node.cluster().view().identities_at("corp").count(), 0);
    // Ten minutes later the user signs in again first, and returns to the home page.
    provider.claims("exp", json!(START_MS / 1_000 + 3_600));
    site.node.clock().advance(Duration::from_mins(10));
    let page = site.link(&mut browser, &provider).await;
    assert!(page.location().starts_with("/login?ticket="), "{}", page.location());
    let location = page.location();
    let page = site.sign_in_at(&mut browser, &location, "bob", PASSWORD).await;
    assert_eq!(page.location(), "/");
    assert_eq!(site.link(&mut browser, &provider).await.location(), "/");
}

#[tokio::test]
async fn what_is_unlinked_signs_nobody_in_and_the_last_way_in_stays() {
    let (site, provider) = open().await;
    let mut browser = site.link_ada(&provider).await;
    let mut by_provider = Browser::default();
    site.fly(&mut by_provider, "/login", &provider).await;
    let unlink = async |browser: &mut Browser| {
        let home = site.get(browser, "/").await;
        let form = &home.text[home.text.find("id=\"unlink-corp\"").unwrap()..];
        let csrf = crate::processes::field(form, "csrf");
        site.post(browser, "/upstream/unlink", &[("csrf", &csrf), ("upstream", "corp")]).await
    };
    let forged = site.post(&mut browser, "/upstream/unlink", &[("csrf", "x"), ("upstream", "corp")]).await;
    assert_eq!(error_of(&forged), "csrf");
    assert_eq!(unlink(&mut browser).await.location(), "/");
    assert_eq!(site.get(&mut by_provider, "/").await.location(), "/login", "what came by it is over");
    let page = site.fly(&mut Browser::default(), "/login", &provider).await;
    assert_eq!(error_of(&page), "upstream_stranger");
    // A user without another way to sign in keeps it.
    admits(&site, UpstreamAdmission::Any, &[]).await;
    let mut new = Browser::default();
    site.fly(&mut new, "/login", &provider).await;
    assert_eq!(error_of(&unlink(&mut new).await), "upstream_last");
}

#[tokio::test]
async fn a_disabled_person_and_a_disabled_provider_open_nothing() {
    let (site, provider) = open().await;
    site.link_ada(&provider).await;
    let ada = site.node.cluster().view().user_by_name("ada").unwrap().id;
    let disabled = async |id: UserId, off: bool| {
        let command = UpdateUser { user_id: id.to_vec(), disabled: Some(off), ..UpdateUser::default() };
        site.node.propose(Body::UpdateUser(command)).await.unwrap();
    };
    disabled(ada, true).await;
    let mut browser = Browser::default();
    let page = site.fly(&mut browser, "/login", &provider).await;
    assert_eq!(
        (error_of(&page).as_str(), browser.cookies.contains_key(SESSION)),
        ("account_disabled", false)
    );
    disabled(ada, false).await;
    let mut browser = Browser::default();
    assert_eq!(site.fly(&mut browser, "/login", &provider).await.location(), "/");
    let mut away = Browser::default();
    let address = site.start_upstream_login(&mut away, "/login", "corp").await;
    change(&site, |command| command.disabled = Some(true)).await;
    assert_eq!(site.get(&mut browser, "/").await.location(), "/login", "its sessions are over");
    let page = site.get(&mut away, &format!("/upstream/corp/callback?{}", provider.allows(&address))).await;
    assert_eq!(error_of(&page), "upstream_unknown");
    let login = site.get(&mut Browser::default(), "/login").await;
    assert!(!login.text.contains("upstream-corp"));
}

#[tokio::test]
async fn who_must_prove_who_they_are_again_must_do_so_there() {
    let (site, provider) = open().await;
    let mut browser = site.link_ada(&provider).await;
    let url = Site::authorize_url("web", &[("prompt", "login")]);
    let address = site.start_upstream_login(&mut browser, &url, "corp").await;
    assert!(address.contains("prompt=login") && address.contains("max_age=0"), "{address}");
    // It does not send the time, or a time long ago.
    let now = START_MS / 1_000;
    for (auth_time, expected) in [
        (json!(null), Some("upstream_not_fresh")),
        (json!(now - 61), Some("upstream_not_fresh")),
        (json!(now), None),
    ] {
        provider.claims("auth_time", auth_time);
        let page = site.fly(&mut browser, &url, &provider).await;
        match expected {
            Some(error) => assert_eq!(error_of(&page), error),
            None => assert!(page.parameter("code").is_some(), "{}", page.text),
        }
    }
    // An essential acr that only a password satisfies is not satisfied, and is not claimed.
    let claims = r#"{"id_token":{"acr":{"essential":true,"values":["1"]}}}"#;
    let url = Site::authorize_url("web", &[("claims", claims)]);
    let page = site.fly(&mut browser, &url, &provider).await;
    assert_eq!(page.parameter("error").as_deref(), Some("unmet_authentication_requirements"));
    let silent = Site::authorize_url("web", &[("claims", claims), ("prompt", "none")]);
    assert_eq!(site.get(&mut browser, &silent).await.parameter("error").as_deref(), Some("login_required"));
    let page = site.sign_in_at(&mut browser, &url, "ada", PASSWORD).await;
    let tokens = site.redeem("web", &page.parameter("code").unwrap()).await.json();
    assert_eq!(claims_of(tokens["id_token"].as_str().unwrap())["acr"], "1");
}

#[tokio::test]
async fn plain_oauth_with_userinfo_works_and_never_passes_for_a_recent_proof() {
    let site = Site::of(TestNode::start_with(loopback).await);
    site.seed().await;
    let hub = Provider::start().await;
    hub.says(|script| {
        script.is_plain = true;
        script.userinfo =
            json!({"id": 583_231, "login": "OctoCat", "email": "o@cat.test", "auth_time": START_MS / 1_000});
    });
    let upstream = Upstream {
        name: "corp".into(),
        display_name: "Hub".into(),
        authorization_endpoint: format!("{}/authorize", hub.url),
        token_endpoint: format!("{}/token", hub.url),
        userinfo_endpoint: format!("{}/userinfo", hub.url),
        client_id: "conclave here".into(),
        sealed_secret: site.node.auth().seal_upstream_secret("corp", "s:cret").unwrap(),
        claims: Some(UpstreamClaims { subject: "id".into(), username: "login".into(), ..Default::default() }),
        rule: Some(rule(UpstreamAdmission::Any, &[])),
        ..Upstream::default()
    };
    let command = CreateUpstream { upstream: Some(upstream) };
    site.node.propose(Body::CreateUpstream(command)).await.unwrap();
    let mut browser = Browser::default();
    let page = site.fly(&mut browser, "/login", &hub).await;
    assert_eq!(page.location(), "/", "{}", page.text);
    assert_eq!(site.get(&mut browser, "/").await.shown("account"), "octocat");
    assert!(site.node.cluster().view().identity("corp", "583231").is_some());
    assert_eq!(hub.documents_asked.load(Ordering::SeqCst), 0);
    let page = site.follow(&mut browser, &Site::authorize_url("web", &[("prompt", "login")])).await;
    assert!(page.text.contains("login-form") && link(&page, "upstream-corp").is_none());
    hub.says(|script| script.userinfo = json!({"login": "OctoCat"}));
    let page = site.fly(&mut Browser::default(), "/login", &hub).await;
    assert_eq!(error_of(&page), "upstream_answer");
}

#[tokio::test]
async fn a_sign_in_sets_out_at_one_node_and_arrives_once_at_any_other() {
    let nodes = TestNode::start_cluster_with(3, loopback).await;
    let sites: Vec<Site> = nodes.into_iter().map(Site::of).collect();
    sites[0].seed().await;
    let provider = Provider::start().await;
    add(&sites[0], "corp", &provider).await;
    let index = sites[0].node.cluster().view().index();
    for site in &sites {
        site.node.cluster().view_at(index).await.unwrap();
    }
    admits(&sites[0], UpstreamAdmission::Any, &[]).await;
    let index = sites[0].node.cluster().view().index();
    for site in &sites {
        site.node.cluster().view_at(index).await.unwrap();
    }
    let mut browser = Browser::default();
    let address = sites[0].start_upstream_login(&mut browser, "/login", "corp").await;
    let callback = format!("/upstream/corp/callback?{}", provider.allows(&address));
    let people = sites[0].people();
    let arriving = (0..32).map(|n| {
        let mut browser = Browser { cookies: browser.cookies.clone() };
        let (site, callback) = (&sites[n % 3], &callback);
        async move {
            let page = site.get(&mut browser, callback).await;
            let session = browser.cookies.get(SESSION).cloned();
            (page.status, session)
        }
    });
    let arrived = futures_util::future::join_all(arriving).await;
    let in_ = arrived.iter().filter(|(_, session)| session.is_some()).count();
    assert_eq!(in_, 1, "{arrived:?}");
    let session = arrived.into_iter().find_map(|(_, session)| session).unwrap();
    let mut browser = Browser { cookies: [(SESSION.to_owned(), session)].into() };
    assert_eq!(sites[2].get(&mut browser, "/").await.status, StatusCode::OK);
    assert_eq!(sites[2].people(), people + 1);
}
