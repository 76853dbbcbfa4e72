//! Policies of applications, as they affect visitors and as operators test them.

use conclave_auth::policy::document::Document;
use conclave_forward_auth::IDENTITY_HEADERS;
use conclave_node::testing::{ApiRole, TestNode};
use conclave_proto::{
    admin::v1::{self as admin, policy_service_client::PolicyServiceClient},
    command::v1::{AddGroupMember, SetPolicy, command::Body as Command},
};
use conclave_state::{Reason, policy::Version};
use http::StatusCode;
use tonic::{Code, Request, metadata::MetadataValue};

use super::{
    forward_auth::{Check, cookie_of},
    site::{Browser, PASSWORD, Page, Site},
};

fn row(text: &str) -> Document {
    Document::from_toml(text).unwrap_or_else(|why| panic!("{why}: {text}"))
}

/// This row, followed by a row that allows staff.
fn then_staff(first: &str) -> Document {
    row(&format!("[[row]]\n{first}\n[[row]]\neffect = \"allow\"\ngroup = \"staff\"\n"))
}

async fn set(site: &Site, document: &Document, candidate: bool) {
    try_set(site, document, candidate).await.unwrap();
}

async fn try_set(site: &Site, document: &Document, candidate: bool) -> Result<(), Reason> {
    let state = site.node.cluster().view();
    let command = SetPolicy {
        application_id: state.application_by_slug("app").unwrap().id.to_vec(),
        policy: Some(document.to_row(&state).unwrap()),
        candidate,
        force: false,
    };
    match site.node.propose(Command::SetPolicy(command)).await {
        Ok(_) => Ok(()),
        Err(conclave_cluster::ProposeError::Refused(refusal)) => Err(refusal.reason),
        Err(error) => panic!("{error}"),
    }
}

fn candidate(site: &Site) -> Version {
    let state = site.node.cluster().view();
    state.candidate_policy(state.application_by_slug("app").unwrap().id).unwrap().clone()
}

async fn check(site: &Site, cookie: &str) -> Page {
    Check::of("traefik").send(site, cookie).await
}

/// A site on which ada (in `staff`) is signed in to the application.
async fn open() -> (Site, String) {
    let site = Site::open().await;
    let cookie = cookie_of(&site, "ada").await.unwrap_or_else(|page| panic!("{}", page.text));
    (site, cookie)
}

fn by_operator<M>(node: &TestNode, message: M) -> Request<M> {
    let mut request = Request::new(message);
    let bearer = MetadataValue::try_from(format!("Bearer {}", node.operator_token())).unwrap();
    request.metadata_mut().insert("authorization", bearer);
    request
}

async fn api(site: &Site) -> PolicyServiceClient<tonic::transport::Channel> {
    let endpoint = tonic::transport::Endpoint::from_shared(site.node.api_url().to_owned()).unwrap();
    PolicyServiceClient::new(endpoint.connect().await.unwrap())
}

#[tokio::test]
async fn each_kind_of_row_is_met_at_the_proxy() {
    let (site, cookie) = open().await;
    // A second member of staff, because the rules refuse a policy that admits no user.
    let bob = site.node.cluster().view().user_by_name("bob").unwrap().id.to_vec();
    let command = AddGroupMember { group_id: site.node.group("staff").await.to_vec(), user_id: bob };
    site.node.propose(Command::AddGroupMember(command)).await.unwrap();
    // Ada, in staff, from 203.0.113.9, on a Friday at 08:00 UTC, signed in with a password: GET /page?q=1.
    for (condition, holds) in [
        ("everyone = true", true),
        ("user = \"ada\"", true),
        ("user = [\"bob\"]", false),
        ("group = \"staff\"", true),
        ("network = \"203.0.113.0/24\"", true),
        ("network = [\"10.0.0.0/8\", \"2001:db8::/32\"]", false),
        ("time = { days = [\"fri\"], from = \"09:00\", to = \"10:00\", zone = \"Europe/Berlin\" }", true),
        ("time = { from = \"08:00\", to = \"09:00\", zone = \"Europe/Berlin\" }", false),
        ("mfa_within = \"12h\"", false),
        ("mfa_within = \"session\"", false),
        ("request = { method = \"GET\", path = \"/page\" }", true),
        ("request = { path = [\"/admin\", \"/admin/*\"] }", false),
        ("expression = \"'staff' in user.groups && request.host == 'app.test'\"", true),
        ("expression = \"session.age > 60\"", false),
    ] {
        set(
            &site,
            &row(&format!(
                "[[row]]\neffect = \"allow\"\n{condition}\n[[row]]\neffect=\"allow\"\nuser = \"bob\""
            )),
            false,
        )
        .await;
        let expected = if holds { StatusCode::OK } else { StatusCode::FORBIDDEN };
        assert_eq!(check(&site, &cookie).await.status, expected, "allow {condition}");
        set(
            &site,
            &then_staff(&format!("effect = \"deny\"\n{condition}\nunless = {{ user = \"bob\" }}")),
            false,
        )
        .await;
        let expected = if holds { StatusCode::FORBIDDEN } else { StatusCode::OK };
        assert_eq!(check(&site, &cookie).await.status, expected, "deny {condition}");
    }
    // A proxy set up for authentik does not send the method: a row that reads the method cannot be decided either.
    set(&site, &then_staff("effect = \"deny\"\nrequest = { method = \"POST\" }"), false).await;
    let silent = Check::of("nginx").at("/outpost.goauthentik.io/auth/nginx").without("x-original-method");
    assert_eq!(silent.send(&site, &cookie).await.status, StatusCode::FORBIDDEN);
    assert_eq!(Check::of("nginx").send(&site, &cookie).await.status, StatusCode::OK);
    // Without a database there is no country: the request is denied, whether the row allows or denies.
    for effect in ["allow", "deny"] {
        set(&site, &then_staff(&format!("effect = \"{effect}\"\ncountry = \"DE\"")), false).await;
        assert_eq!(check(&site, &cookie).await.status, StatusCode::FORBIDDEN, "{effect}");
    }
}

#[tokio::test]
async fn a_denied_visitor_gets_a_decision_id_that_the_operator_can_look_up() {
    let (site, cookie) = open().await;
    let denying = "effect = \"deny\"\nexpression = \"request.path == '/page' && user.username == 'ada'\"";
    set(&site, &then_staff(denying), false).await;
    let page = check(&site, &cookie).await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    let decision = page.shown("decision-id");
    assert!(page.headers.get("remote-user").is_none());

    let ask = admin::ExplainDecisionRequest { decision: decision.clone() };
    let told = api(&site).await.explain_decision(by_operator(&site.node, ask)).await.unwrap().into_inner();
    let (verdict, told_id) = (told.verdict.unwrap(), told.id.clone());
    assert_eq!((told.id, told.application.as_str(), verdict.user.as_str()), (decision, "app", "ada"));
    assert_eq!((verdict.allowed, verdict.row, verdict.why.as_str()), (false, 1, "row 1 matches and denies"));
    let saw: Vec<_> = verdict.saw.iter().map(|saw| (saw.name.as_str(), saw.value.as_str())).collect();
    assert_eq!(saw, [("request.path", "\"/page\""), ("user.username", "\"ada\"")]);
    assert_eq!((told.address.as_str(), told.path.as_str()), ("203.0.113.9", "/page"), "and no query");
    let listed = async |user: &str, denied| {
        let ask = admin::ListDecisionsRequest { application: "app".into(), user: user.into(), denied };
        let answer = api(&site).await.list_decisions(by_operator(&site.node, ask)).await?;
        Ok::<_, tonic::Status>(
            answer.into_inner().decisions.into_iter().map(|one| one.id).collect::<Vec<_>>(),
        )
    };
    assert_eq!(listed("ada", true).await.unwrap().first(), Some(&told_id));
    assert_eq!(listed("", false).await.unwrap().first(), Some(&told_id));
    assert_eq!(listed("nobody", true).await.unwrap_err().code(), Code::NotFound);
    let ask = admin::ExplainDecisionRequest { decision: "1-0000000000000000".into() };
    let unknown = api(&site).await.explain_decision(by_operator(&site.node, ask)).await;
    assert_eq!(unknown.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_policy_is_watched_switched_on_and_cannot_lock_the_administrators_out() {
    let (site, ada) = open().await;
    let node = &site.node;
    let (staff, admins) = (node.group("staff").await, node.group("admins").await);
    let user = |name: &str| node.cluster().view().user_by_name(name).unwrap().id.to_vec();
    node.create_user("cyd", PASSWORD, &["admins"]).await;
    for (group, name) in [(staff, "bob"), (staff, "cyd"), (admins, "ada")] {
        let command = AddGroupMember { group_id: group.to_vec(), user_id: user(name) };
        node.propose(Command::AddGroupMember(command)).await.unwrap();
    }
    let cookies = [ada.clone(), cookie_of(&site, "bob").await.unwrap_or_else(|page| panic!("{}", page.text))];
    // The candidate would lock out half of the users; it does not affect them yet.
    set(&site, &row("[[row]]\neffect = \"allow\"\ngroup = \"admins\"\n"), true).await;
    for cookie in cookies.iter().cycle().take(10) {
        assert_eq!(check(&site, cookie).await.status, StatusCode::OK);
    }
    let application = || "app".to_owned();
    let mut api = api(&site).await;
    let ask = admin::GetShadowReportRequest { application: application() };
    let report = api.get_shadow_report(by_operator(node, ask)).await.unwrap().into_inner();
    assert_eq!((report.seen, report.would_deny, report.would_allow, report.faults), (10, 5, 0, 0));
    let difference = &report.differences[0];
    assert_eq!((report.differences.len(), difference.count), (1, 5));
    assert_eq!(difference.would.as_ref().unwrap().user, "bob");
    // A replay of the recorded decisions: the first admission is a sample.
    let ask = admin::ReplayCandidateRequest { application: application() };
    let replayed = api.replay_candidate(by_operator(node, ask)).await.unwrap().into_inner();
    assert!(replayed.looked_at >= 1 && replayed.version == report.version);

    // Promoted in the version that was evaluated.
    let promote =
        |version| admin::PromoteCandidateRequest { application: application(), version, force: false };
    let other = api.promote_candidate(by_operator(node, promote(report.version + 1))).await.unwrap_err();
    assert_eq!(other.code(), Code::FailedPrecondition);
    api.promote_candidate(by_operator(node, promote(report.version))).await.unwrap();
    assert_eq!(check(&site, &cookies[0]).await.status, StatusCode::OK);
    assert_eq!(check(&site, &cookies[1]).await.status, StatusCode::FORBIDDEN);

    // The next policy would admit no administrator.
    let document = serde_json::to_string(&row("[[row]]\neffect = \"allow\"\nuser = \"bob\"\n")).unwrap();
    let command = |candidate, force| admin::SetPolicyRequest {
        application: application(),
        document: document.clone(),
        candidate,
        force,
    };
    let refused = api.set_policy(by_operator(node, command(false, false))).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("admins"), "{}", refused.message());
    assert_eq!(refused.metadata().get("x-conclave-reason").unwrap(), "locks_out");
    api.set_policy(by_operator(node, command(true, false))).await.unwrap();
    let version = candidate(&site).version;
    assert_eq!(
        api.promote_candidate(by_operator(node, promote(version))).await.unwrap_err().code(),
        Code::FailedPrecondition
    );
    assert_eq!(check(&site, &cookies[0]).await.status, StatusCode::OK, "nothing has changed");
    api.set_policy(by_operator(node, command(false, true))).await.unwrap();
    assert_eq!(check(&site, &cookies[0]).await.status, StatusCode::FORBIDDEN, "forced");
    assert_eq!(check(&site, &cookies[1]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn paths_without_sign_in_are_those_and_no_others() {
    let (site, cookie) = open().await;
    let policy = "[[row]]\neffect = \"allow\"\ngroup = \"staff\"\n[[public]]\npath = [\"/public/*\", \"/health\"]\n\
        [[header]]\nname = \"x-role\"\nexpression = \"'staff' in user.groups ? 'editor' : 'viewer'\"\n";
    set(&site, &row(policy), false).await;
    let at = |uri: &str| Check::of("traefik").set("x-forwarded-uri", uri);
    for open in ["/public/a", "/public/a?next=/../admin", "/health", "/%70ublic/x"] {
        let page = at(open).send(&site, "").await;
        assert_eq!(page.status, StatusCode::OK, "{open}");
        for name in IDENTITY_HEADERS.iter().chain(&["x-role"]) {
            assert_eq!(page.headers[*name], "", "{open}: {name} is there, and empty");
        }
        // A signed-in user is identified there as well.
        let page = at(open).send(&site, &cookie).await;
        assert_eq!(
            (&page.headers["remote-user"], &page.headers["x-role"]),
            (&"ada".parse().unwrap(), &"editor".parse().unwrap())
        );
    }
    for closed in [
        "/",
        "/public",
        "/private",
        "/public/../admin",
        "/public/%2e%2e/admin",
        "/public/%2E%2E/admin",
        "//public/a",
        "/public//a",
        "/public/..;/admin",
        "/public;/a",
        "/public/a#b",
        "/public%2fa",
        "/public/%252e%252e/admin",
        "/x?/public/a",
        "/Public/a",
        "/x/../public/a",
        "/public\\..\\admin",
    ] {
        let page = at(closed).send(&site, "").await;
        assert!(matches!(page.status.as_u16(), 302 | 400 | 401 | 403), "{closed}: {}", page.status);
    }
    for method in ["POST", "PUT", "OPTIONS", "get"] {
        let page = at("/public/a").set("x-forwarded-method", method).send(&site, "").await;
        assert_eq!(page.status, StatusCode::UNAUTHORIZED, "{method}");
    }
    let elsewhere = at("/public/a").set("x-forwarded-host", "other.test").send(&site, "").await;
    assert_eq!(elsewhere.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_header_that_cannot_be_told_lets_nobody_in() {
    let (site, cookie) = open().await;
    let with = |expression: &str| {
        row(&format!(
            "[[row]]\neffect = \"allow\"\ngroup = \"staff\"\n[[header]]\nname = \"x-team\"\nexpression = \"{expression}\"\n"
        ))
    };
    set(&site, &with("user.attributes.team"), false).await;
    let page = check(&site, &cookie).await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    let decision = site.node.auth().policies().decision_log().find(&page.shown("decision-id")).unwrap();
    assert!(decision.why.text.contains("x-team"), "{}", decision.why.text);
    set(&site, &with("has(user.attributes.team) ? user.attributes.team : 'none'"), false).await;
    assert_eq!(check(&site, &cookie).await.headers["x-team"], "none");
}

#[tokio::test]
async fn clients_of_the_application_are_under_the_same_policy() {
    let site = Site::open().await;
    let url = Site::authorize_url("staff-only", &[("scope", "openid offline_access")]);
    set(
        &site,
        &then_staff("effect = \"deny\"\nunless = { network = \"192.0.2.0/24\" }\neveryone = true"),
        false,
    )
    .await;
    // Together with the login, in one write.
    let page = site.sign_in_at(&mut Browser::default(), &url, "ada", PASSWORD).await;
    let tokens = site.redeem("staff-only", &page.parameter("code").unwrap()).await.json();
    let refresh = async |token: &serde_json::Value| {
        let form = [("grant_type", "refresh_token"), ("refresh_token", token.as_str().unwrap())];
        site.token(Some(("staff-only", super::site::SECRET)), &form).await
    };
    let page = refresh(&tokens["refresh_token"]).await;
    assert_eq!(page.status, 200, "{}", page.text);
    let tokens = page.json();
    assert_eq!(site.userinfo(tokens["access_token"].as_str().unwrap()).await.status, 200);

    // Tightened: tokens and refreshes end, and a new sign-in gets the page with the decision.
    set(&site, &then_staff("effect = \"deny\"\nnetwork = \"192.0.2.0/24\""), false).await;
    assert_eq!(site.userinfo(tokens["access_token"].as_str().unwrap()).await.status, 401);
    assert_eq!(refresh(&tokens["refresh_token"]).await.json()["error"], "invalid_grant");
    let page = site.sign_in_at(&mut Browser::default(), &url, "ada", PASSWORD).await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    assert!(site.node.auth().policies().decision_log().find(&page.shown("decision-id")).is_some());
    // A row about requests cannot be decided for a client, and so denies.
    set(&site, &then_staff("effect = \"deny\"\nrequest = { path = \"/admin/*\" }"), false).await;
    let page = site.sign_in_at(&mut Browser::default(), &url, "ada", PASSWORD).await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_test_says_who_could_open_it_and_why() {
    let (site, _) = open().await;
    set(
        &site,
        &then_staff(
            "effect = \"deny\"\nunless = { network = \"10.0.0.0/8\" }\nrequest = { path = \"/admin/*\" }",
        ),
        false,
    )
    .await;
    let mut api = api(&site).await;
    let (_, reader) = site.node.api_token(ApiRole::Reader).await;
    let ask = |command: admin::TestPolicyRequest| {
        let mut request = Request::new(admin::TestPolicyRequest { application: "app".into(), ..command });
        request.metadata_mut().insert("authorization", format!("Bearer {reader}").parse().unwrap());
        request
    };
    let about = |user: &str, address: &str, path: &str| admin::TestPolicyRequest {
        user: user.into(),
        address: address.into(),
        path: path.into(),
        ..Default::default()
    };
    for (user, address, path, allowed, row) in [
        ("ada", "10.1.1.1", "/admin/x", true, 2),
        ("ada", "203.0.113.9", "/admin/x", false, 1),
        ("ada", "203.0.113.9", "/", true, 2),
        ("ada", "", "/admin/x", false, 1), // the address is unknown
        ("bob", "10.1.1.1", "/", false, 0),
    ] {
        let found = api.test_policy(ask(about(user, address, path))).await.unwrap().into_inner();
        let verdict = &found.verdicts[0];
        assert_eq!(
            (verdict.allowed, verdict.row),
            (allowed, row),
            "{user} {address} {path}: {}",
            verdict.why
        );
    }
    let everybody = api.test_policy(ask(about("", "10.1.1.1", "/"))).await.unwrap().into_inner();
    let mut admitted: Vec<_> = everybody.verdicts.iter().map(|v| (v.user.as_str(), v.allowed)).collect();
    admitted.sort_unstable();
    assert_eq!(admitted, [("ada", true), ("bob", false)]);
    let no_candidate =
        api.test_policy(ask(admin::TestPolicyRequest { candidate: true, ..about("ada", "", "/") })).await;
    assert_eq!(no_candidate.unwrap_err().code(), Code::NotFound);
    // A policy that does not compile never enters the log.
    for bad in [
        "{}x",
        r#"{"row":[{"effect":"allow"}]}"#,
        r#"{"row":[{"effect":"allow","group":"nobody-made-it"}]}"#,
        r#"{"row":[{"effect":"allow","expression":"user.username.matches('a')"}]}"#,
        r#"{"row":[{"effect":"allow","everyone":true,"colour":"red"}]}"#,
        r#"{"header":[{"name":"cookie","expression":"'x'"}]}"#,
    ] {
        let command =
            admin::SetPolicyRequest { application: "app".into(), document: bad.into(), ..Default::default() };
        let refused = api.set_policy(by_operator(&site.node, command)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{bad}: {}", refused.message());
    }
}

/// The policies of the documentation are set, printed, and set again as they were printed.
#[tokio::test]
async fn the_examples_of_the_documentation_are_policies() {
    let site = Site::open().await;
    for group in ["admins", "partners"] {
        site.node.group(group).await;
    }
    site.node.create_user("mallory", "", &[]).await;
    let documentation = include_str!("../../../../docs/policy.md");
    let mut count = 0;
    for fence in ["```toml\n", "```json\n"] {
        for example in documentation.split(fence).skip(1).map(|rest| rest.split("```").next().unwrap()) {
            if example.contains("# conclave.toml") {
                continue;
            }
            let is_json = fence.contains("json");
            let document = if is_json { Document::from_json(example) } else { Document::from_toml(example) };
            let document = document.unwrap_or_else(|why| panic!("{why}: {example}"));
            let state = site.node.cluster().view();
            let written = document.to_row(&state).unwrap_or_else(|why| panic!("{why}: {example}"));
            set(&site, &document, false).await;
            let shown = serde_json::to_string(&Document::of_row(&written, &state)).unwrap();
            let again = Document::from_json(&shown).unwrap().to_row(&state).unwrap();
            assert_eq!(again, written, "{example}");
            count += 1;
        }
    }
    assert_eq!(count, 4);
}

#[tokio::test]
async fn what_could_be_read_as_an_extra_header_is_not_let_through_beside_it() {
    let (site, cookie) = open().await;
    let policy = "[[row]]\neffect = \"allow\"\ngroup = \"staff\"\n[[public]]\npath = \"/public/*\"\n\
        [[header]]\nname = \"x-role\"\nexpression = \"'viewer'\"\n";
    set(&site, &row(policy), false).await;
    for (uri, cookie) in [("/page", cookie.as_str()), ("/public/a", cookie.as_str()), ("/public/a", "")] {
        for alias in ["x_role", "x.role", "X_Role"] {
            let check = Check::of("traefik").set("x-forwarded-uri", uri).set(alias, "admin");
            assert_eq!(check.send(&site, cookie).await.status, StatusCode::FORBIDDEN, "{uri} {alias}");
        }
        // The policy's value overwrites that header itself.
        let check = Check::of("traefik").set("x-forwarded-uri", uri).set("x-role", "admin");
        assert_eq!(check.send(&site, cookie).await.status, StatusCode::OK, "{uri}");
    }
    // Without extra headers, such a header is the application's concern.
    set(&site, &row("[[row]]\neffect = \"allow\"\ngroup = \"staff\"\n"), false).await;
    let check = Check::of("traefik").set("x_role", "admin");
    assert_eq!(check.send(&site, &cookie).await.status, StatusCode::OK);
}

#[tokio::test]
async fn what_a_candidate_opens_or_closes_to_visitors_is_in_its_report() {
    let (site, _) = open().await;
    let bobs = {
        set(&site, &row("[[row]]\neffect = \"allow\"\neveryone = true\n"), false).await;
        cookie_of(&site, "bob").await.unwrap_or_else(|page| panic!("{}", page.text))
    };
    let staff = "[[row]]\neffect = \"allow\"\ngroup = \"staff\"\n";
    let public = |path: &str| row(&format!("{staff}[[public]]\npath = \"{path}\"\n"));
    let at = async |uri: &str, cookie: &str| {
        let page = Check::of("traefik").set("x-forwarded-uri", uri).send(&site, cookie).await;
        page.status == StatusCode::OK
    };
    let report = || {
        let candidate = candidate(&site);
        let state = site.node.cluster().view();
        let application = state.application_by_slug("app").unwrap().id;
        site.node.auth().policies().shadows().report(application, candidate.version)
    };
    set(&site, &public("/status/*"), false).await;
    set(&site, &public("/assets/*"), true).await;
    assert!(at("/status/a", "").await && !at("/assets/a", "").await && !at("/page", "").await);
    // A signed-in user who is admitted only by the public path.
    assert!(at("/status/a", &bobs).await && !at("/assets/a", &bobs).await);
    let found = report();
    assert_eq!((found.seen, found.would_deny, found.would_allow), (5, 2, 2), "{found:?}");
    let mut differences: Vec<_> =
        found.differences.iter().map(|d| (d.username.as_str(), d.would_allow, d.count)).collect();
    differences.sort_unstable();
    assert_eq!(differences, [("", false, 1), ("", true, 1), ("bob", false, 1), ("bob", true, 1)]);
    // A candidate without public paths is evaluated for visitors as long as the policy in force has some.
    set(&site, &row(staff), true).await;
    assert!(at("/status/a", "").await);
    assert_eq!((report().seen, report().would_deny), (1, 1));
    set(&site, &row(staff), false).await;
    assert!(!at("/status/a", "").await);
    assert_eq!(report().seen, 1, "nothing is open to anybody by either");
}
