//! Each resource from creation to deletion.

use std::collections::BTreeMap;

use conclave_auth::trusted_browser::TrustedBrowser;
use conclave_crypto::mac::sha256;
use conclave_node::testing::TestNode;
use conclave_proto::{
    admin::v1::{
        self as pb, app_password_service_client::AppPasswordServiceClient,
        application_service_client::ApplicationServiceClient, client_service_client::ClientServiceClient,
        cluster_service_client::ClusterServiceClient, group_service_client::GroupServiceClient,
        session_service_client::SessionServiceClient, token_service_client::TokenServiceClient,
        user_service_client::UserServiceClient,
    },
    command::v1::{RaiseLevel, StartSession, command::Body},
};
use conclave_state::{client::SigningAlgorithm, ids::UserId};
use tonic::Code;

use super::{by_operator, channel, page, refusal, with};

fn new_user(username: &str) -> pb::CreateUserRequest {
    pb::CreateUserRequest {
        username: username.into(),
        password: "correct horse".into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_user_from_first_to_last() {
    let node = TestNode::start().await;
    node.group("staff").await;
    let mut users = UserServiceClient::new(channel(&node));
    let ada = pb::CreateUserRequest {
        display_name: "Ada".into(),
        email: "ada@example.org".into(),
        attributes: BTreeMap::from([("team".into(), "engine".into())]),
        groups: vec!["staff".into()],
        ..new_user("Ada")
    };
    let made = users.create_user(by_operator(&node, ada.clone())).await.unwrap().into_inner();
    assert_eq!(
        (made.username.as_str(), made.groups.as_slice(), made.has_password),
        ("ada", &["staff".into()][..], true)
    );
    assert_eq!(made.attributes.get("team").map(String::as_str), Some("engine"));
    assert_eq!(refusal(users.create_user(by_operator(&node, ada)).await).0, Code::AlreadyExists);

    for name in ["ada", "ADA", &made.id] {
        let got = users.get_user(by_operator(&node, pb::GetUserRequest { user: name.into() })).await.unwrap();
        assert_eq!(got.into_inner(), made, "{name}");
    }
    assert!(
        node.auth()
            .prove_password("ada", "correct horse".into(), [127, 0, 0, 1].into(), &TrustedBrowser::default())
            .await
            .is_ok()
    );

    let change = pb::UpdateUserRequest {
        user: "ada".into(),
        display_name: Some("Countess".into()),
        disabled: Some(true),
        ..Default::default()
    };
    let changed = users.update_user(by_operator(&node, change)).await.unwrap().into_inner();
    assert_eq!((changed.display_name.as_str(), changed.disabled), ("Countess", true));
    assert_eq!((changed.email, changed.attributes), (made.email, made.attributes), "what is not named stays");
    let proof = node
        .auth()
        .prove_password("ada", "correct horse".into(), [127, 0, 0, 1].into(), &TrustedBrowser::default())
        .await;
    assert!(matches!(proof, Err(conclave_auth::password::PasswordRejection::Disabled)));

    users.delete_user(by_operator(&node, pb::DeleteUserRequest { user: "ada".into() })).await.unwrap();
    let gone = refusal(users.get_user(by_operator(&node, pb::GetUserRequest { user: "ada".into() })).await);
    assert_eq!(gone, (Code::NotFound, "there is no user ada".into()));
}

#[tokio::test]
async fn passwords_are_bounded_replaced_and_never_shown() {
    let node = TestNode::start().await;
    let mut users = UserServiceClient::new(channel(&node));
    users.create_user(by_operator(&node, new_user("ada"))).await.unwrap();
    let session = start_session(&node, node.cluster().view().user_by_name("ada").unwrap().id, 1).await;
    let set = |password: String, keep_sessions| {
        by_operator(
            &node,
            pb::SetPasswordRequest { user: "ada".into(), password, keep_sessions, ..Default::default() },
        )
    };
    for (bad, words) in [("", "at least 8"), ("seven77", "at least 8"), (&"x".repeat(1025), "at most 1024")] {
        let (code, text) = refusal(users.set_password(set(bad.into(), true)).await);
        assert_eq!(code, Code::InvalidArgument);
        assert!(text.contains(words) && (bad.is_empty() || !text.contains(bad)), "{text}");
    }
    users.set_password(set("a better one".into(), true)).await.unwrap();
    assert!(
        node.auth()
            .prove_password("ada", "correct horse".into(), [127, 0, 0, 1].into(), &TrustedBrowser::default())
            .await
            .is_err()
    );
    assert!(
        node.auth()
            .prove_password("ada", "a better one".into(), [127, 0, 0, 1].into(), &TrustedBrowser::default())
            .await
            .is_ok()
    );
    let state = node.cluster().view();
    assert!(state.live_session(session, state.meta().clock).is_some());
    users.set_password(set("another one".into(), false)).await.unwrap();
    let state = node.cluster().view();
    assert!(state.live_session(session, state.meta().clock).is_none(), "a new password ends the sessions");
}

#[tokio::test]
async fn listings_come_in_pages_whose_tokens_are_theirs_alone() {
    let node = TestNode::start().await;
    let mut users = UserServiceClient::new(channel(&node));
    for number in 0..5 {
        node.create_user(&format!("user{number}"), "", &["everybody"]).await;
    }
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let request = pb::ListUsersRequest { page: page(2, &token) };
        let answer = users.list_users(by_operator(&node, request)).await.unwrap().into_inner();
        assert!(answer.users.len() <= 2);
        seen.extend(answer.users.into_iter().map(|user| user.username));
        token = answer.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    seen.sort();
    assert_eq!(seen, ["user0", "user1", "user2", "user3", "user4"]);

    let first =
        users.list_users(by_operator(&node, pb::ListUsersRequest { page: page(2, "") })).await.unwrap();
    let token = first.into_inner().next_page_token;
    let mut groups = GroupServiceClient::new(channel(&node));
    let elsewhere =
        groups.list_groups(by_operator(&node, pb::ListGroupsRequest { page: page(2, &token) })).await;
    assert_eq!(refusal(elsewhere).0, Code::InvalidArgument);
    for (size, token) in [(2, "garbage"), (501, "")] {
        let bad =
            users.list_users(by_operator(&node, pb::ListUsersRequest { page: page(size, token) })).await;
        assert_eq!(refusal(bad).0, Code::InvalidArgument);
    }
}

#[tokio::test]
async fn groups_and_their_members() {
    let node = TestNode::start().await;
    node.create_user("ada", "", &[]).await;
    let mut groups = GroupServiceClient::new(channel(&node));
    let staff = pb::CreateGroupRequest { name: "staff".into(), description: "people".into() };
    let made = groups.create_group(by_operator(&node, staff.clone())).await.unwrap().into_inner();
    assert_eq!(refusal(groups.create_group(by_operator(&node, staff)).await).0, Code::AlreadyExists);
    let member = |group: &str| pb::MemberRequest { group: group.into(), user: "ada".into() };
    groups.add_member(by_operator(&node, member("staff"))).await.unwrap();
    let list = async |groups: &mut GroupServiceClient<_>| {
        let request = by_operator(&node, pb::ListGroupsRequest { page: None });
        groups.list_groups(request).await.unwrap().into_inner().groups
    };
    assert_eq!(list(&mut groups).await, [pb::Group { member_count: 1, ..made.clone() }]);
    groups.remove_member(by_operator(&node, member(&made.id))).await.unwrap();
    assert_eq!(list(&mut groups).await, [made]);
    let unknown = refusal(groups.add_member(by_operator(&node, member("nobodies"))).await);
    assert_eq!(unknown, (Code::NotFound, "there is no group nobodies".into()));
    groups.delete_group(by_operator(&node, pb::DeleteGroupRequest { group: "staff".into() })).await.unwrap();
    assert!(list(&mut groups).await.is_empty());
}

#[tokio::test]
async fn what_an_older_member_would_drop_of_an_application_waits_for_the_level() {
    let node = TestNode::start().await;
    let mut applications = ApplicationServiceClient::new(channel(&node));
    let plain = pb::CreateApplicationRequest { slug: "a".into(), name: "A".into(), ..Default::default() };
    let chosen = pb::CreateApplicationRequest { header_profile: "remote".into(), ..plain.clone() };
    let refused = applications.create_application(by_operator(&node, chosen)).await;
    assert_eq!(refusal(refused).0, Code::FailedPrecondition);
    let made = applications.create_application(by_operator(&node, plain)).await.unwrap().into_inner();
    assert_eq!(made.header_profile, "all");
    let hosts = Some(pb::HostList { hosts: vec!["[2001:db8::7]".into()] });
    for change in [
        pb::UpdateApplicationRequest { header_profile: Some("remote".into()), ..Default::default() },
        pb::UpdateApplicationRequest { header_text: Some("percent".into()), ..Default::default() },
        pb::UpdateApplicationRequest { hosts, ..Default::default() },
    ] {
        let change = pb::UpdateApplicationRequest { application: "a".into(), ..change };
        let refused = applications.update_application(by_operator(&node, change)).await;
        assert_eq!(refusal(refused).0, Code::FailedPrecondition);
    }
}

#[tokio::test]
async fn hosts_are_taken_as_people_write_them_and_headers_by_name() {
    let node = TestNode::start().await;
    node.propose(Body::RaiseLevel(RaiseLevel { level: conclave_state::level::SUPPORTED })).await.unwrap();
    let mut applications = ApplicationServiceClient::new(channel(&node));
    let command = |slug: &str, host: &str| pb::CreateApplicationRequest {
        slug: slug.into(),
        name: slug.into(),
        hosts: vec![host.into()],
        ..Default::default()
    };
    for (slug, written, canonical) in [
        ("a", "bücher.example", "xn--bcher-kva.example"),
        ("b", "[2001:DB8:0::7]", "[2001:db8::7]"),
        ("c", "Wiki.Example.ORG.", "wiki.example.org"),
        ("d", "*.Bücher.example", "*.xn--bcher-kva.example"),
    ] {
        let made = applications
            .create_application(by_operator(&node, command(slug, written)))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(made.hosts, [canonical], "{written}");
        assert_eq!(
            (made.header_profile.as_str(), made.header_text.as_str()),
            ("remote", "raw"),
            "the default"
        );
        let view = node.cluster().view();
        assert!(view.application_by_host(&canonical.replace('*', "x")).is_some(), "{canonical}");
    }
    for wrong in [
        "wiki.example.org:8443",
        "[2001:db8::7]:443",
        "2001:db8::7",
        "*.[::1]",
        "https://wiki.example.org",
        "ü%2e.example",
    ] {
        let (code, text) =
            refusal(applications.create_application(by_operator(&node, command("x", wrong))).await);
        assert_eq!(code, Code::InvalidArgument, "{wrong}: {text}");
        assert!(text.contains("host"), "{wrong}: {text}");
    }
    let change = |profile: Option<&str>, text: Option<&str>| pb::UpdateApplicationRequest {
        application: "a".into(),
        header_profile: profile.map(str::to_owned),
        header_text: text.map(str::to_owned),
        ..Default::default()
    };
    for (profile, text, chosen) in [
        (Some("all"), None, ("all", "raw")),
        (None, Some("percent"), ("all", "percent")),
        (Some("auth-request"), Some("omit"), ("auth-request", "omit")),
        (Some("authentik"), Some("raw"), ("authentik", "raw")),
    ] {
        let changed = applications
            .update_application(by_operator(&node, change(profile, text)))
            .await
            .unwrap()
            .into_inner();
        assert_eq!((changed.header_profile.as_str(), changed.header_text.as_str()), chosen);
        assert_eq!(changed.hosts, ["xn--bcher-kva.example"]);
    }
    let (code, text) =
        refusal(applications.update_application(by_operator(&node, change(Some("remote-user"), None))).await);
    assert_eq!(code, Code::InvalidArgument);
    assert!(text.contains("remote, authentik, auth-request, all"), "{text}");
}

#[tokio::test]
async fn an_application_from_first_to_last() {
    let node = TestNode::start().await;
    node.group("staff").await;
    let mut applications = ApplicationServiceClient::new(channel(&node));
    let wiki = pb::CreateApplicationRequest {
        slug: "wiki".into(),
        name: "Wiki".into(),
        launch_url: "https://wiki.example.org/".into(),
        hosts: vec!["Wiki.example.org".into()],
        groups: vec!["staff".into()],
        ..Default::default()
    };
    let made = applications.create_application(by_operator(&node, wiki.clone())).await.unwrap().into_inner();
    assert_eq!(
        (made.hosts.as_slice(), made.groups.as_slice()),
        (&["wiki.example.org".into()][..], &["staff".into()][..])
    );
    let thief = pb::CreateApplicationRequest { slug: "other".into(), ..wiki.clone() };
    let (code, text) = refusal(applications.create_application(by_operator(&node, thief)).await);
    assert_eq!(code, Code::AlreadyExists);
    assert!(text.contains("wiki.example.org"), "{text}");
    let script =
        pb::CreateApplicationRequest { slug: "x".into(), launch_url: "javascript:alert(1)".into(), ..wiki };
    assert_eq!(
        refusal(applications.create_application(by_operator(&node, script)).await).0,
        Code::InvalidArgument
    );

    let change = pb::UpdateApplicationRequest {
        application: "wiki".into(),
        access: Some(pb::AccessRule { everyone: true, groups: vec![] }),
        ..Default::default()
    };
    let changed = applications.update_application(by_operator(&node, change)).await.unwrap().into_inner();
    assert_eq!(changed, pb::Application { everyone: true, groups: vec![], ..made });
    let get = pb::GetApplicationRequest { application: changed.id.clone() };
    assert_eq!(applications.get_application(by_operator(&node, get)).await.unwrap().into_inner(), changed);
    let list =
        applications.list_applications(by_operator(&node, pb::ListApplicationsRequest { page: None })).await;
    assert_eq!(list.unwrap().into_inner().applications, [changed]);
    let delete = pb::DeleteApplicationRequest { application: "wiki".into() };
    applications.delete_application(by_operator(&node, delete)).await.unwrap();
    assert!(node.cluster().view().application_by_slug("wiki").is_none());
}

#[tokio::test]
async fn a_client_from_first_to_last() {
    let node = TestNode::start().await;
    let mut clients = ClientServiceClient::new(channel(&node));
    let shop = pb::CreateClientRequest {
        client_id: "shop".into(),
        redirect_uris: vec!["https://shop.example.org/cb".into()],
        ..Default::default()
    };
    let answer = clients.create_client(by_operator(&node, shop.clone())).await.unwrap().into_inner();
    let made = answer.client.unwrap();
    assert_eq!(
        (made.auth_method.as_str(), made.signing_algorithm.as_str()),
        ("client_secret_basic", "RS256")
    );
    assert_eq!((made.consent.as_str(), made.scopes.join(" ")), ("implicit", "openid profile email".into()));
    let kept = |node: &TestNode| *node.cluster().view().client("shop").unwrap().secret_hash.unwrap().bytes();
    assert_eq!(kept(&node), sha256(answer.client_secret.as_bytes()));

    let rotate = pb::RotateClientSecretRequest {
        client_id: "shop".into(),
        keep_previous_ms: 60_000,
        ..Default::default()
    };
    let rotated = clients.rotate_client_secret(by_operator(&node, rotate)).await.unwrap().into_inner();
    assert_ne!(rotated.client_secret, answer.client_secret);
    assert_eq!(kept(&node), sha256(rotated.client_secret.as_bytes()));
    let get = by_operator(&node, pb::GetClientRequest { client_id: "shop".into() });
    let shown = clients.get_client(get).await.unwrap().into_inner();
    let until = conclave_node::testing::START_MS + 60_000;
    assert_eq!(shown.previous_secret_expires_at_ms, until, "the former secret is valid for a while");

    for bad in ["http://shop.example.org/cb", "https://shop.example.org/cb#x", "javascript:alert(1)"] {
        let request = pb::CreateClientRequest {
            client_id: "bad".into(),
            redirect_uris: vec![bad.into()],
            ..shop.clone()
        };
        let (code, text) = refusal(clients.create_client(by_operator(&node, request)).await);
        assert_eq!(code, Code::InvalidArgument);
        assert!(text.starts_with("redirect_uris: ") && text.contains(bad), "{text}");
        let uris = Some(pb::UriList { uris: vec![bad.into()] });
        let request =
            pb::UpdateClientRequest { client_id: "shop".into(), redirect_uris: uris, ..Default::default() };
        assert_eq!(
            refusal(clients.update_client(by_operator(&node, request)).await).0,
            Code::InvalidArgument
        );
    }

    let public = pb::CreateClientRequest { client_id: String::new(), auth_method: "none".into(), ..shop };
    let public = clients.create_client(by_operator(&node, public)).await.unwrap().into_inner();
    assert!(public.client_secret.is_empty());
    let public = public.client.unwrap();
    let rotate = pb::RotateClientSecretRequest {
        client_id: public.client_id.clone(),
        keep_previous_ms: 0,
        ..Default::default()
    };
    assert_eq!(
        refusal(clients.rotate_client_secret(by_operator(&node, rotate)).await).0,
        Code::InvalidArgument
    );

    let change =
        pb::UpdateClientRequest { client_id: "shop".into(), disabled: Some(true), ..Default::default() };
    let changed = clients.update_client(by_operator(&node, change)).await.unwrap().into_inner();
    assert_eq!(changed, pb::Client { disabled: true, previous_secret_expires_at_ms: until, ..made });
    let list = clients.list_clients(by_operator(&node, pb::ListClientsRequest { page: None })).await.unwrap();
    assert_eq!(list.into_inner().clients.len(), 2);
    clients
        .delete_client(by_operator(&node, pb::DeleteClientRequest { client_id: "shop".into() }))
        .await
        .unwrap();
    let get = clients.get_client(by_operator(&node, pb::GetClientRequest { client_id: "shop".into() })).await;
    assert_eq!(refusal(get).0, Code::NotFound);
}

#[tokio::test]
async fn http_on_private_hosts_is_given_up_only_with_the_addresses_that_need_it() {
    let node = TestNode::start().await;
    node.propose(Body::RaiseLevel(RaiseLevel { level: conclave_state::level::SUPPORTED })).await.unwrap();
    let mut clients = ClientServiceClient::new(channel(&node));
    let http = pb::CreateClientRequest {
        client_id: "lan".into(),
        redirect_uris: vec!["http://nas.lan/cb".into()],
        backchannel_logout_uri: "http://nas.lan/bye".into(),
        allow_http: true,
        ..Default::default()
    };
    clients.create_client(by_operator(&node, http)).await.unwrap();
    let back = |uris: Option<Vec<String>>| pb::UpdateClientRequest {
        client_id: "lan".into(),
        allow_http: Some(false),
        redirect_uris: uris.map(|uris| pb::UriList { uris }),
        ..Default::default()
    };
    let refused = clients.update_client(by_operator(&node, back(None))).await;
    let (code, why) = refusal(refused);
    assert!(code == Code::InvalidArgument && why.contains("http://nas.lan/cb"), "{why}");
    let moved = back(Some(vec!["https://nas.lan/cb".into()]));
    clients.update_client(by_operator(&node, moved)).await.unwrap();
}

#[tokio::test]
async fn how_a_clients_tokens_are_made_is_said_in_the_words_of_registration() {
    let node = TestNode::start().await;
    let mut clients = ClientServiceClient::new(channel(&node));
    let jwks =
        r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    let bank = pb::CreateClientRequest {
        client_id: "bank".into(),
        auth_method: "private_key_jwt".into(),
        jwks: jwks.into(),
        token_endpoint_auth_signing_alg: "EdDSA".into(),
        redirect_uris: vec!["https://bank.test/cb".into(), "https://bank.test/other".into()],
        signing_algorithm: "PS256".into(),
        grant_types: vec!["authorization_code".into(), "client_credentials".into()],
        dpop_bound_access_tokens: true,
        subject_type: "pairwise".into(),
        access_token_format: "opaque".into(),
        audiences: vec!["https://api.bank.test".into()],
        ..Default::default()
    };
    let answer = clients.create_client(by_operator(&node, bank.clone())).await.unwrap().into_inner();
    assert!(answer.client_secret.is_empty(), "it has keys instead");
    let made = answer.client.unwrap();
    assert_eq!((made.sector.as_str(), made.subject_type.as_str()), ("bank.test", "pairwise"));
    assert_eq!((&made.grant_types, &made.jwks), (&bank.grant_types, &bank.jwks));
    assert_eq!((made.access_token_format.as_str(), made.dpop_bound_access_tokens), ("opaque", true));
    let state = node.cluster().view();
    assert!(state.active_key(SigningAlgorithm::Ps256).is_some(), "the key is there before the client");

    let change = pb::UpdateClientRequest {
        client_id: "bank".into(),
        grant_types: Some(pb::GrantTypeList { grant_types: vec!["client_credentials".into()] }),
        userinfo_signed_response_alg: Some("ES256".into()),
        access_token_format: Some("jwt".into()),
        ..Default::default()
    };
    let changed = clients.update_client(by_operator(&node, change)).await.unwrap().into_inner();
    let expected = pb::Client {
        grant_types: vec!["client_credentials".into()],
        userinfo_signed_response_alg: "ES256".into(),
        access_token_format: "jwt".into(),
        ..made
    };
    assert_eq!(changed, expected);

    let unnamed = pb::CreateClientRequest {
        client_id: "unnamed".into(),
        token_endpoint_auth_signing_alg: String::new(),
        ..bank.clone()
    };
    let unnamed =
        clients.create_client(by_operator(&node, unnamed)).await.unwrap().into_inner().client.unwrap();
    assert_eq!(unnamed.token_endpoint_auth_signing_alg, "EdDSA", "what its key is for");

    node.propose(Body::RaiseLevel(RaiseLevel { level: conclave_state::level::SUPPORTED })).await.unwrap();
    for (subject_type, sector, expected) in [
        (None, Some("Other.test"), ("pairwise", "other.test")),
        (Some("public"), None, ("public", "")),
        (Some("pairwise"), None, ("pairwise", "bank.test")),
    ] {
        let change = pb::UpdateClientRequest {
            client_id: "bank".into(),
            subject_type: subject_type.map(Into::into),
            sector: sector.map(Into::into),
            ..Default::default()
        };
        let changed = clients.update_client(by_operator(&node, change)).await.unwrap().into_inner();
        assert_eq!((changed.subject_type.as_str(), changed.sector.as_str()), expected);
    }

    let private = jwks.replace("\"x\"", "\"d\":\"AA\",\"x\"");
    for bad in [
        pb::CreateClientRequest { jwks: private, ..bank.clone() },
        pb::CreateClientRequest { jwks: "{}".into(), ..bank.clone() },
        pb::CreateClientRequest { jwks: String::new(), ..bank.clone() },
        pb::CreateClientRequest { token_endpoint_auth_signing_alg: "none".into(), ..bank.clone() },
        pb::CreateClientRequest { grant_types: vec!["password".into()], ..bank.clone() },
        pb::CreateClientRequest { auth_method: "none".into(), ..bank.clone() },
        pb::CreateClientRequest {
            redirect_uris: vec!["https://a.test/cb".into(), "https://b.test/cb".into()],
            ..bank.clone()
        },
        pb::CreateClientRequest { subject_type: "public".into(), sector: "a.test".into(), ..bank.clone() },
    ] {
        let bad = pb::CreateClientRequest { client_id: "bad".into(), ..bad };
        let refused = clients.create_client(by_operator(&node, bad.clone())).await;
        assert_eq!(refusal(refused).0, Code::InvalidArgument, "{bad:?}");
    }
}

async fn start_session(node: &TestNode, user: UserId, number: u8) -> conclave_state::ids::SessionId {
    let id = conclave_state::ids::SessionId::new([number; 16]);
    let command = StartSession {
        session_id: id.to_vec(),
        user_id: user.to_vec(),
        secret_hash: vec![number; 32],
        ticket_id: vec![number; 16],
        ticket_expires_at_ms: conclave_node::testing::START_MS + 60_000,
        amr: vec!["pwd".into()],
        ttl_ms: 3_600_000,
        credential_version: node.cluster().view().password(user).map_or(0, |password| password.version),
        address: "192.0.2.7".into(),
        ..StartSession::default()
    };
    node.propose(Body::StartSession(command)).await.unwrap();
    id
}

#[tokio::test]
async fn sessions_are_listed_while_they_live_and_end_when_told() {
    let node = TestNode::start().await;
    let ada = node.create_user("ada", "correct horse", &[]).await;
    let bob = node.create_user("bob", "correct horse", &[]).await;
    for number in 1..=3 {
        start_session(&node, ada, number).await;
    }
    start_session(&node, bob, 4).await;
    let mut sessions = SessionServiceClient::new(channel(&node));
    let list = async |sessions: &mut SessionServiceClient<_>, user: &str| {
        let (mut ids, mut token) = (Vec::new(), String::new());
        loop {
            let request = pb::ListSessionsRequest { user: user.into(), page: page(2, &token) };
            let answer = sessions.list_sessions(by_operator(&node, request)).await.unwrap().into_inner();
            ids.extend(answer.sessions.into_iter().map(|s| (s.username, s.id[..2].to_owned())));
            token = answer.next_page_token;
            if token.is_empty() {
                return ids;
            }
        }
    };
    let ada_has =
        |ids: &[&str]| ids.iter().map(|id| ("ada".to_owned(), (*id).to_owned())).collect::<Vec<_>>();
    assert_eq!(list(&mut sessions, "ada").await, ada_has(&["01", "02", "03"]));
    assert_eq!(list(&mut sessions, "").await.len(), 4);

    let revoke = || pb::RevokeSessionRequest { session_id: "02".repeat(16), with_grants: false };
    sessions.revoke_session(by_operator(&node, revoke())).await.unwrap();
    sessions.revoke_session(by_operator(&node, revoke())).await.unwrap();
    assert_eq!(list(&mut sessions, "ada").await, ada_has(&["01", "03"]));
    let all = pb::RevokeUserSessionsRequest { user: "ada".into(), app_passwords: false };
    sessions.revoke_user_sessions(by_operator(&node, all)).await.unwrap();
    assert!(list(&mut sessions, "ada").await.is_empty());
    assert_eq!(list(&mut sessions, "").await.len(), 1);
    node.clock().advance(std::time::Duration::from_hours(2));
    assert!(list(&mut sessions, "").await.is_empty(), "an expired session is not shown");
}

#[tokio::test]
async fn tokens_open_the_api_until_they_end() {
    let node = TestNode::start().await;
    let mut tokens = TokenServiceClient::new(channel(&node));
    let new = |role: &str, ttl_ms| pb::CreateTokenRequest { name: "ci".into(), role: role.into(), ttl_ms };
    assert_eq!(
        refusal(tokens.create_token(by_operator(&node, new("root", 0))).await).0,
        Code::InvalidArgument
    );
    let lasting = tokens.create_token(by_operator(&node, new("admin", 0))).await.unwrap().into_inner();
    let short = tokens.create_token(by_operator(&node, new("reader", 60_000))).await.unwrap().into_inner();
    let list = async |tokens: &mut TokenServiceClient<_>, token: &str| {
        tokens.list_tokens(with(pb::ListTokensRequest { page: None }, token, &[])).await
    };
    assert_eq!(list(&mut tokens, &short.secret).await.unwrap().into_inner().tokens.len(), 2);
    node.clock().advance(std::time::Duration::from_secs(61));
    assert_eq!(refusal(list(&mut tokens, &short.secret).await).0, Code::Unauthenticated);
    let left = list(&mut tokens, &lasting.secret).await.unwrap().into_inner().tokens;
    assert_eq!(left, [lasting.token.clone().unwrap()]);
    let revoke = pb::RevokeTokenRequest { id: lasting.token.unwrap().id };
    tokens.revoke_token(with(revoke, &lasting.secret, &[])).await.unwrap();
    assert_eq!(refusal(list(&mut tokens, &lasting.secret).await).0, Code::Unauthenticated);
}

#[tokio::test]
async fn the_status_names_every_member() {
    let node = TestNode::start().await;
    let mut cluster = ClusterServiceClient::new(channel(&node));
    let status = cluster.get_status(by_operator(&node, pb::GetStatusRequest {})).await.unwrap().into_inner();
    let [member] = status.nodes.as_slice() else { panic!("{status:?}") };
    assert_eq!((status.leader_id, member.id, member.role.as_str()), (1, 1, "leader"));
    assert!(member.reachable && member.ready && member.digest.len() == 64, "{member:?}");
    assert_eq!((member.api_url.as_str(), status.cluster_id.len()), (node.api_url(), 32));
}

#[tokio::test]
async fn a_clients_own_claims_are_read_before_they_are_kept() {
    let node = TestNode::start().await;
    let mut clients = ClientServiceClient::new(channel(&node));
    let rule = |name: &str, scope: &str, expression: &str| pb::ClaimRule {
        name: name.into(),
        scope: scope.into(),
        expression: expression.into(),
    };
    let with = |claims: Vec<pb::ClaimRule>| pb::CreateClientRequest {
        client_id: "shop".into(),
        redirect_uris: vec!["https://shop.example.org/cb".into()],
        claims,
        ..Default::default()
    };
    for bad in [
        rule("sub", "", "user.username"),
        rule("email_verified", "", "true"),
        rule("role", "", "request.path"),
        rule("role", "", "user.groups["),
        rule("role", "two words", "user.groups"),
        rule("", "", "user.groups"),
    ] {
        let refused = clients.create_client(by_operator(&node, with(vec![bad.clone()]))).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{bad:?}: {refused:?}");
    }
    let own = vec![
        rule("role", "", "'admins' in user.groups ? 'Admin' : 'Viewer'"),
        rule("teams", "profile", "user.groups"),
    ];
    let made = clients.create_client(by_operator(&node, with(own.clone()))).await.unwrap().into_inner();
    assert_eq!(made.client.unwrap().claims, own);
    let emptied = pb::UpdateClientRequest {
        client_id: "shop".into(),
        claims: Some(pb::ClaimRuleList { claims: vec![] }),
        ..Default::default()
    };
    let changed = clients.update_client(by_operator(&node, emptied)).await.unwrap().into_inner();
    assert_eq!(changed.claims, []);
}

#[tokio::test]
async fn passwords_of_programs_end_with_a_password_that_somebody_else_sets_and_where_it_is_asked_for() {
    let node = TestNode::start().await;
    let mut users = UserServiceClient::new(channel(&node));
    let mut sessions = SessionServiceClient::new(channel(&node));
    let mut passwords = AppPasswordServiceClient::new(channel(&node));
    users.create_user(by_operator(&node, new_user("ada"))).await.unwrap();
    let mut make = async || {
        let command =
            pb::CreateAppPasswordRequest { user: "ada".into(), name: "phone".into(), ..Default::default() };
        passwords.create_app_password(by_operator(&node, command)).await.unwrap();
    };
    let count = || {
        let state = node.cluster().view();
        state.app_passwords_of(state.user_by_name("ada").unwrap().id).count()
    };
    let set = |keep_app_passwords| {
        let command = pb::SetPasswordRequest {
            user: "ada".into(),
            password: "another one".into(),
            keep_sessions: false,
            keep_app_passwords,
        };
        by_operator(&node, command)
    };
    let revoke = |app_passwords| {
        by_operator(&node, pb::RevokeUserSessionsRequest { user: "ada".into(), app_passwords })
    };
    make().await;
    make().await;
    users.set_password(set(true)).await.unwrap();
    assert_eq!(count(), 2);
    let said = sessions.revoke_user_sessions(revoke(false)).await.unwrap().into_inner();
    assert_eq!((said.app_passwords_left, count()), (2, 2), "they stay valid, and the response reports it");
    let said = sessions.revoke_user_sessions(revoke(true)).await.unwrap().into_inner();
    assert_eq!((said.app_passwords_left, count()), (0, 0));
    make().await;
    users.set_password(set(false)).await.unwrap();
    assert_eq!(count(), 0);
}
