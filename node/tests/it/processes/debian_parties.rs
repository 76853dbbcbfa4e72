//! Relying parties and resource servers by other authors, with the defaults that they are shipped with:
//! mod_auth_openidc, mod_oauth2 and Dovecot as Debian packages them, and passport-openidconnect (npm). Each client is
//! created by the plainest command, against the front of a real cluster, which sends every request to the next node.
//! `make test` installs the programs.

use std::{path::Path, process::Command};

use serde_json::{Value, json};
use url::Url;

use super::{
    debian_servers::{Imap, apache, dovecot},
    party::{End, Party, Person, directory},
    world::{Demo, browser},
};

/// The redirect URI of a native application; the test itself plays that application.
const REDIRECT_URI: &str = "http://127.0.0.1:1/callback";

/// Creates a client and returns its secret.
fn create_client(demo: &Demo, id: &str, options: &[&str]) -> String {
    let made = demo.conclave(&[&["client", "create", "--id", id], options].concat());
    made["client_secret"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn mod_auth_openidc_signs_in_while_the_leader_dies_and_shows_a_refusal_once() {
    let demo = Demo::start(&[]);
    demo.all_ready().await;
    let port = demo.own_port(0);
    let base = format!("http://127.0.0.1:{port}");
    let redirect_uri = format!("{base}/protected/redirect_uri");
    let made = demo.conclave(&["client", "create", "--id", "apache", "--redirect-uri", &redirect_uri]);
    let secret = made["client_secret"].as_str().unwrap();
    let issuer = &demo.cluster.issuer;
    // The values that the command prints for the administrator.
    assert_eq!((&made["issuer"], &made["pkce"]), (&json!(issuer), &json!("S256, or a nonce")));
    assert_eq!(made["discovery_url"], format!("{issuer}/.well-known/openid-configuration"));
    let settings = format!(
        r#"OIDCProviderMetadataURL {issuer}/.well-known/openid-configuration
OIDCClientID apache
OIDCClientSecret {secret}
OIDCRedirectURI {redirect_uri}
OIDCCryptoPassphrase of-the-test
OIDCScope "openid profile email"
OIDCDefaultURL {base}/protected/
<Location /protected>
AuthType openid-connect
Require valid-user
Header always set X-Name "%{{OIDC_CLAIM_preferred_username}}e"
Header always set X-Email "%{{OIDC_CLAIM_email}}e"
</Location>"#
    );
    let _apache = apache(port, "auth_openidc", &settings).await;

    let mut person = Person::new(&demo);
    person.kills_the_leader = true;
    let end = person.opens(&format!("{base}/protected/")).await;
    assert_eq!(end.status, 200, "{} {}", end.url, end.text);
    assert_eq!(end.headers["x-name"], "admin");
    assert_eq!(end.headers["x-email"], "admin@example.test");

    // The module of Debian 12 mistakes an error with `iss` for the start of a login (decision 0066): without it the
    // error is shown, and the browser is not redirected again.
    demo.conclave(&["client", "update", "apache", "--omit-error-iss", "true", "--scope", "groups"]);
    let end = Person::new(&demo).opens(&format!("{base}/protected/")).await;
    assert!(end.text.contains("invalid_scope"), "{} {}", end.url, end.text);
    let left = demo.conclave(&["client", "update", "apache", "--no-redirect-uri"]);
    assert_eq!(left["redirect_uris"], json!([]));
}

/// Starts the application for a new client, created by the plainest command. Returns its address as well.
async fn passport(demo: &Demo, id: &str, port: u16, sends_nonce: bool) -> (Party, String) {
    let base = format!("http://127.0.0.1:{port}");
    let secret = create_client(demo, id, &["--redirect-uri", &format!("{base}/oauth2/redirect")]);
    let client = json!({ "id": id, "secret": secret });
    let told = json!({ "issuer": demo.cluster.issuer, "port": port, "nonce": sends_nonce, "client": client });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/relying_parties/passport.mjs");
    let mut command = Command::new("node");
    command.arg(script).arg(told.to_string());
    (Party::start(&mut command, directory(), port).await, base)
}

#[tokio::test]
async fn passport_openidconnect_signs_in_with_a_nonce_or_one_word_of_the_administrator() {
    let demo = Demo::start(&[]);
    demo.all_ready().await;
    let (_bare, bare) = passport(&demo, "bare", demo.own_port(0), false).await;
    let (_nonce, with_nonce) = passport(&demo, "nonce", demo.own_port(1), true).await;
    let signed_in = |end: End| {
        let seen: Value =
            serde_json::from_str(&end.text).unwrap_or_else(|_| panic!("{} {}", end.url, end.text));
        assert_eq!(seen, json!({ "issuer": demo.cluster.issuer, "username": "admin" }));
    };
    signed_in(Person::new(&demo).opens(&format!("{with_nonce}/login")).await);

    // By default it sends neither PKCE nor a nonce, and the error says so.
    let refused = Person::new(&demo).opens(&format!("{bare}/login")).await;
    assert_eq!(refused.status, 401, "{} {}", refused.url, refused.text);
    assert!(refused.text.contains("nonce"), "{}", refused.text);
    demo.conclave(&["client", "update", "bare", "--pkce-optional", "without-nonce"]);
    let mut person = Person::new(&demo);
    person.kills_the_leader = true;
    signed_in(person.opens(&format!("{bare}/login")).await);
}

/// An application signs its user in and gets an access token for resource servers by other authors.
async fn access_token(demo: &Demo, id: &str, secret: &str) -> String {
    let front = &demo.cluster.front;
    let mut url = Url::parse(&format!("{front}/oidc/authorize")).unwrap();
    url.query_pairs_mut().extend_pairs([
        ("response_type", "code"),
        ("client_id", id),
        ("redirect_uri", REDIRECT_URI),
        ("scope", "openid profile email"),
        ("nonce", "n"),
    ]);
    let mut person = Person::new(demo);
    person.stops_at = Some(REDIRECT_URI);
    let back = person.opens(url.as_str()).await.url;
    let code = back.query_pairs().find(|(name, _)| name == "code").map(|(_, code)| code.into_owned());
    let code = code.unwrap_or_else(|| panic!("no code: {back}"));
    let form = [("grant_type", "authorization_code"), ("code", &*code), ("redirect_uri", REDIRECT_URI)];
    let request = browser().post(format!("{front}/oidc/token")).basic_auth(id, Some(secret)).form(&form);
    let text = request.send().await.unwrap().text().await.unwrap();
    let tokens: Value = serde_json::from_str(&text).unwrap();
    tokens["access_token"].as_str().unwrap_or_else(|| panic!("{tokens}")).to_owned()
}

async fn revoke(demo: &Demo, id: &str, secret: &str, token: &str) {
    let url = format!("{}/oidc/revoke", demo.cluster.front);
    let request = browser().post(url).basic_auth(id, Some(secret)).form(&[("token", token)]);
    assert_eq!(request.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn dovecot_knows_users_by_tokens_of_another_client() {
    let demo = Demo::start(&[]);
    demo.all_ready().await;
    let (introspects, reads_userinfo) = (demo.own_port(0), demo.own_port(1));
    let mail = "https://mail.example.org";
    let secret = create_client(&demo, "dovecot", &["--audience", mail, "--grant-type", "client_credentials"]);
    let resource = ["--redirect-uri", REDIRECT_URI, "--resource", mail, "--default-resource", mail];
    let app = create_client(&demo, "webmail", &resource);
    let (front, authority) = (&demo.cluster.front, demo.cluster.front.trim_start_matches("http://"));
    let by_introspection = format!(
        "introspection_mode = post\nintrospection_url = http://dovecot:{secret}@{authority}/oidc/introspect\n\
         username_attribute = username\nactive_attribute = active\nactive_value = true\n"
    );
    let by_userinfo = format!("introspection_mode = auth\nintrospection_url = {front}/oidc/userinfo\n");
    let _first = dovecot(introspects, &by_introspection).await;
    let _second = dovecot(reads_userinfo, &by_userinfo).await;

    let token = access_token(&demo, "webmail", &app).await;
    // Dovecot reads userinfo with its own default: the user's name is `email`.
    for (port, name) in [(introspects, "admin"), (reads_userinfo, "admin@example.test")] {
        for mechanism in ["XOAUTH2", "OAUTHBEARER"] {
            let answer = Imap::open(port).await.authenticate(mechanism, name, &token).await;
            assert!(answer.starts_with("a OK"), "{port} {mechanism}: {answer}");
        }
    }
    revoke(&demo, "webmail", &app, &token).await;
    // The challenge of RFC 7628 §3.2.2 makes the mail client get a new token.
    let answer = Imap::open(introspects).await.authenticate("XOAUTH2", "admin", &token).await;
    assert!(answer.starts_with("+ "), "{answer}");
    // Dovecot 2.3 treats every userinfo response without a name as a failure of the server, whatever its status and
    // body.
    let mut imap = Imap::open(reads_userinfo).await;
    let answer = imap.authenticate("XOAUTH2", "admin@example.test", &token).await;
    assert!(answer.starts_with("a NO"), "{answer}");
}

#[tokio::test]
async fn mod_oauth2_takes_tokens_of_another_client_by_introspection_and_by_signature() {
    let demo = Demo::start(&[]);
    demo.all_ready().await;
    let port = demo.own_port(0);
    let api = "https://api.example.org";
    let secret = create_client(&demo, "apache", &["--audience", api, "--grant-type", "client_credentials"]);
    let resource = ["--redirect-uri", REDIRECT_URI, "--resource", api, "--default-resource", api];
    let app = create_client(&demo, "app", &resource);
    let issuer = &demo.cluster.issuer;
    let settings = format!(
        r#"<Location /introspected>
AuthType oauth2
OAuth2TokenVerify introspect {issuer}/oidc/introspect introspect.auth=client_secret_basic&client_id=apache&client_secret={secret}
OAuth2TargetPass remote_user_claim=username
Require valid-user
Header always set X-User "expr=%{{REMOTE_USER}}"
</Location>
<Location /verified>
AuthType oauth2
OAuth2TokenVerify metadata {issuer}/.well-known/openid-configuration
Require oauth2_claim aud:{api}
Header always set X-User "expr=%{{REMOTE_USER}}"
</Location>"#
    );
    let _apache = apache(port, "oauth2", &settings).await;
    let token = access_token(&demo, "app", &app).await;
    let get = async |path: &str, token: &str| {
        let request = browser().get(format!("http://127.0.0.1:{port}{path}")).bearer_auth(token);
        let reply = request.send().await.unwrap();
        (reply.status().as_u16(), reply.headers()["x-user"].to_str().unwrap_or_default().to_owned())
    };
    assert_eq!(get("/introspected", &token).await, (200, "admin".to_owned()));
    let (status, subject) = get("/verified", &token).await;
    assert!(status == 200 && !subject.is_empty(), "{status} {subject}");
    for path in ["/introspected", "/verified"] {
        assert_eq!(get(path, &format!("{token}x")).await.0, 401, "{path}");
    }
}
