//! Names as users type them: composed or not, an address as the username, and a name that changed.

use conclave_proto::{
    admin::v1::{
        self as pb, group_service_client::GroupServiceClient, user_service_client::UserServiceClient,
    },
    command::v1::{UpdateUser, command::Body as Command},
};
use conclave_state::Reason;
use http::StatusCode;
use tonic::Code;

use super::{
    forward_auth::{Check, cookie_of},
    site::{Browser, PASSWORD, Page, Site},
};
use crate::admin::{by_operator, channel, refusal};

/// Sets the e-mail address of a user.
pub(super) async fn address(site: &Site, username: &str, email: &str, verified: bool) {
    let user = site.node.cluster().view().user_by_name(username).unwrap().id;
    let command = UpdateUser {
        user_id: user.to_vec(),
        email: Some(email.into()),
        email_verified: Some(verified),
        ..UpdateUser::default()
    };
    site.node.propose(Command::UpdateUser(command)).await.unwrap();
}

async fn signs_in(site: &Site, username: &str, password: &str) -> Page {
    site.sign_in_at(&mut Browser::default(), "/", username, password).await
}

async fn open() -> Site {
    let site = Site::open().await;
    site.raise_level().await;
    site
}

#[tokio::test]
async fn a_password_is_typed_on_any_keyboard() {
    let site = open().await;
    let (composed, decomposed) = ("gr\u{fc}ner K\u{e4}se", "gru\u{308}ner\u{a0}Ka\u{308}se");
    site.node.create_user("composed", composed, &[]).await;
    site.node.create_user("decomposed", decomposed, &[]).await;
    for username in ["composed", "decomposed"] {
        for password in [composed, decomposed] {
            assert_eq!(signs_in(&site, username, password).await.status, StatusCode::SEE_OTHER, "{username}");
        }
        let other = signs_in(&site, username, "gruner Kase").await;
        assert_eq!(other.status, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn a_verified_address_signs_its_user_in_and_tells_strangers_nothing() {
    let site = open().await;
    let wrong = signs_in(&site, "nobody", PASSWORD).await;
    address(&site, "ada", "Jos\u{e9}.ada@Example.org", false).await;
    let unproved = signs_in(&site, "jos\u{e9}.ada@example.org", PASSWORD).await;
    address(&site, "ada", "Jos\u{e9}.ada@Example.org", true).await;
    let guessed = signs_in(&site, "jos\u{e9}.ada@example.org", "wrong password").await;
    let unknown = signs_in(&site, "nobody@example.org", PASSWORD).await;
    for page in [&unproved, &guessed, &unknown] {
        assert_eq!((page.status, page.shown("error")), (wrong.status, wrong.shown("error")));
    }
    // With the hint of an application, in each form.
    let url = Site::authorize_url("web", &[("login_hint", "jose\u{301}.ada@example.org")]);
    let mut browser = Browser::default();
    let form = site.walk(&mut browser, &url).await;
    assert!(form.text.contains("ada@example.org"), "{}", form.text);
    let page = site.sign_in_at(&mut browser, &url, " JOSE\u{301}.ADA@EXAMPLE.ORG", PASSWORD).await;
    assert!(page.parameter("code").is_some(), "{}", page.location());
    assert_eq!(site.get(&mut browser, "/").await.shown("account"), "ada");
    // An address that was given up names no user.
    address(&site, "ada", "ada@new.test", true).await;
    assert_eq!(signs_in(&site, "jos\u{e9}.ada@example.org", PASSWORD).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_lock_out_by_one_name_tells_nothing_of_the_other_and_each_is_bounded() {
    let site = open().await;
    address(&site, "ada", "ada@example.org", true).await;
    // Ten by each name, in each form, and alike for an address that no user has.
    for forms in [
        ["ada", " ADA "],
        ["ada@example.org", " ADA@example.org"],
        ["ghost@example.org", "GHOST@example.org"],
    ] {
        for n in 0..10 {
            let page = signs_in(&site, forms[n % 2], "wrong").await;
            assert_eq!(
                (page.status, page.shown("error").as_str()),
                (StatusCode::UNAUTHORIZED, "The username or password is wrong."),
                "{forms:?} {n}"
            );
        }
        for form in forms {
            let page = signs_in(&site, form, PASSWORD).await;
            assert_eq!(page.status, StatusCode::TOO_MANY_REQUESTS, "{form}");
        }
    }
}

#[tokio::test]
async fn nobody_takes_an_address_of_another_for_a_username_or_an_address() {
    let site = open().await;
    address(&site, "ada", "ada@example.org", true).await;
    let mut users = UserServiceClient::new(channel(&site.node));
    let made = |username: &str, email: &str| {
        let (username, email) = (username.into(), email.into());
        by_operator(&site.node, pb::CreateUserRequest { username, email, ..Default::default() })
    };
    for (username, email, words) in [
        ("ADA@example.org", "", "is the e-mail address of the user ada"),
        ("carol", "Ada@Example.org", "belongs to the user ada"),
        ("carol", "BOB", "must look like name@domain"),
    ] {
        let (code, text) = refusal(users.create_user(made(username, email)).await);
        assert!(
            matches!(code, Code::AlreadyExists | Code::InvalidArgument) && text.contains(words),
            "{text}"
        );
    }
    let change = pb::UpdateUserRequest {
        user: "bob".into(),
        email: Some("ADA@EXAMPLE.ORG".into()),
        ..Default::default()
    };
    let (code, _) = refusal(users.update_user(by_operator(&site.node, change)).await);
    assert_eq!(code, Code::AlreadyExists);
    // Typed text has one form.
    let made = users.create_user(made("carol", "Carole\u{301}@Example.org")).await.unwrap().into_inner();
    assert_eq!(made.email, "Carol\u{e9}@Example.org");
}

#[tokio::test]
async fn a_rename_is_seen_at_the_next_check_and_ends_nothing() {
    let site = open().await;
    let cookie = cookie_of(&site, "ada").await.unwrap_or_else(|page| panic!("{}", page.text));
    let mut browser = Browser::default();
    site.sign_in_at(&mut browser, "/", "ada", PASSWORD).await;
    let sub = site.node.cluster().view().user_by_name("ada").unwrap().id;
    let mut users = UserServiceClient::new(channel(&site.node));
    let mut groups = GroupServiceClient::new(channel(&site.node));
    let to = |user: &str, username: &str| {
        let (user, username) = (user.into(), username.into());
        by_operator(&site.node, pb::RenameUserRequest { user, username, force: false })
    };
    let renamed = users.rename_user(to("ada", "Lovelace")).await.unwrap().into_inner();
    assert_eq!((renamed.username.as_str(), renamed.id), ("lovelace", sub.to_string()));
    let command = pb::RenameGroupRequest { group: "STAFF".into(), name: "Crew".into(), force: false };
    let crew = groups.rename_group(by_operator(&site.node, command)).await.unwrap().into_inner();
    assert_eq!((crew.name.as_str(), crew.member_count), ("Crew", 1));

    let page = Check::of("traefik").send(&site, &cookie).await;
    assert_eq!(page.status, StatusCode::OK, "the access rule follows the group: {}", page.text);
    assert_eq!(
        (&page.headers["remote-user"], &page.headers["remote-groups"]),
        (&"lovelace".parse().unwrap(), &"Crew".parse().unwrap())
    );
    assert_eq!(site.get(&mut browser, "/").await.shown("account"), "lovelace");
    assert_eq!(signs_in(&site, "ada", PASSWORD).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(signs_in(&site, "lovelace", PASSWORD).await.status, StatusCode::SEE_OTHER);

    // The refusal names the conflict.
    for (user, username, code) in [
        ("bob", "Lovelace", Code::AlreadyExists),
        ("bob", "a b", Code::InvalidArgument),
        ("ada", "x", Code::NotFound),
    ] {
        assert_eq!(refusal(users.rename_user(to(user, username)).await).0, code, "{user} {username}");
    }
    let admins = site.node.group("admins").await;
    let command = pb::RenameGroupRequest { group: admins.to_string(), name: "bosses".into(), force: true };
    let (code, text) = refusal(groups.rename_group(by_operator(&site.node, command)).await);
    assert!(code == Code::InvalidArgument && text.contains("cannot be renamed"), "{text}");
}

#[tokio::test]
async fn an_expression_that_names_a_group_holds_its_rename_up() {
    use conclave_auth::policy::document::Document;
    use conclave_proto::command::v1::SetPolicy;
    let site = open().await;
    let text = "[[row]]\neffect = \"deny\"\nexpression = \"!('staff' in user.groups)\"\n\n[[row]]\neffect = \"allow\"\neveryone = true\n";
    let view = site.node.cluster().view();
    let policy = Document::from_toml(text).unwrap().to_row(&view).unwrap();
    let application_id = view.application_by_slug("app").unwrap().id.to_vec();
    let command = SetPolicy { application_id, policy: Some(policy), force: true, ..Default::default() };
    site.node.propose(Command::SetPolicy(command)).await.unwrap();
    let mut groups = GroupServiceClient::new(channel(&site.node));
    let rename = |force| {
        by_operator(&site.node, pb::RenameGroupRequest { group: "staff".into(), name: "crew".into(), force })
    };
    let (code, text) = refusal(groups.rename_group(rename(false)).await);
    assert_eq!(code, Code::FailedPrecondition);
    assert!(text.contains("policy of app") && text.contains("staff"), "{text}");
    groups.rename_group(rename(true)).await.unwrap();
    assert_eq!(Reason::NameInUse.as_str_name(), "REASON_NAME_IN_USE");
}
