//! Clients that authenticate by a signed assertion (RFC 7523, OIDC Core §9): once, by their own key, for this cluster.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use conclave_crypto::{jwk::Alg, jwt::JwtSigningKey};
use conclave_node::testing::{START_MS, TestNode};
use conclave_proto::command::v1::{
    ClientAuthMethod, ClientTokens, CreateClient, GrantType, SigningAlgorithm,
};
use http::StatusCode;
use serde_json::{Value, json};

use super::{
    oidc_tokens::{ISSUER, client, own_token, register, with_grants},
    site::{Page, SECRET, Site, basic},
};

pub(super) fn client_key(alg: Alg) -> JwtSigningKey {
    let entropy = conclave_base::runtime::testing::SeededEntropy::new(77);
    JwtSigningKey::from_pkcs8(alg, &JwtSigningKey::generate_pkcs8(alg, &*entropy).unwrap()).unwrap()
}

pub(super) fn signing_client(id: &str, keys: &[&JwtSigningKey], algorithm: SigningAlgorithm) -> CreateClient {
    let jwks = json!({"keys": keys.iter().map(|key| key.public_jwk()).collect::<Vec<_>>()});
    let tokens = ClientTokens {
        jwks: jwks.to_string().into_bytes(),
        assertion_algorithm: algorithm.into(),
        ..with_grants(&[GrantType::ClientCredentials, GrantType::AuthorizationCode, GrantType::RefreshToken])
    };
    CreateClient {
        auth_method: ClientAuthMethod::PrivateKeyJwt.into(),
        secret_hash: Vec::new(),
        ..client(id, tokens)
    }
}

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const NOW: u64 = START_MS / 1_000;

pub(super) fn assertion(id: &str, jti: &str) -> Value {
    json!({"iss": id, "sub": id, "aud": ISSUER, "iat": NOW, "exp": NOW + 60, "jti": jti})
}

pub(super) async fn asserted(site: &Site, assertion: &str, more: &[(&str, &str)]) -> Page {
    let form = [
        ("grant_type", "client_credentials"),
        ("client_assertion_type", ASSERTION_TYPE),
        ("client_assertion", assertion),
    ];
    site.call("/oidc/token", &[], &[&form[..], more].concat()).await
}

#[tokio::test]
async fn a_client_proves_itself_by_a_signed_assertion_once() {
    let site = Site::open().await;
    for (n, (alg, algorithm)) in [
        (Alg::Es256, SigningAlgorithm::Es256),
        (Alg::EdDsa, SigningAlgorithm::Eddsa),
        (Alg::Rs256, SigningAlgorithm::Rs256),
        (Alg::Ps256, SigningAlgorithm::Ps256),
    ]
    .into_iter()
    .enumerate()
    {
        let key = client_key(alg);
        let id = format!("signs-{n}");
        register(&site, signing_client(&id, &[&key], algorithm)).await;
        let good = key.sign("JWT", &assertion(&id, "1")).unwrap();
        assert_eq!(asserted(&site, &good, &[]).await.status, StatusCode::OK, "{alg:?}");
        let again = asserted(&site, &good, &[]).await;
        assert_eq!(again.json()["error"], "invalid_client", "a second time");
        let mut at_token_endpoint = assertion(&id, "2");
        at_token_endpoint["aud"] = json!(format!("{ISSUER}/oidc/token"));
        let token = key.sign("JWT", &at_token_endpoint).unwrap();
        assert_eq!(asserted(&site, &token, &[("client_id", &id)]).await.status, StatusCode::OK);
    }
    let key = client_key(Alg::Es256);
    register(&site, signing_client("many", &[&key], SigningAlgorithm::Es256)).await;
    let many = key.sign("JWT", &assertion("many", "1")).unwrap();
    let whole = |jti: &str| {
        let assertion = key.sign("JWT", &assertion("many", jti)).unwrap();
        let form = ["client_credentials", ASSERTION_TYPE, &assertion].map(str::to_owned);
        let headers = [("idempotency-key", "k".to_owned())];
        async move |site: &Site| {
            let names = ["grant_type", "client_assertion_type", "client_assertion"];
            let form: Vec<(&str, &str)> = names.into_iter().zip(form.iter().map(String::as_str)).collect();
            site.call("/oidc/token", &headers, &form).await.status
        }
    };
    let once = whole("2");
    assert_eq!(once(&site).await, StatusCode::OK);
    assert_eq!(once(&site).await, StatusCode::UNAUTHORIZED, "the whole request again is a replay, too");
    let answers = futures_util::future::join_all((0..32).map(|_| asserted(&site, &many, &[]))).await;
    assert_eq!(answers.iter().filter(|page| page.status == StatusCode::OK).count(), 1);
}

#[tokio::test]
async fn an_assertion_that_is_wrong_in_anything_proves_nothing() {
    let site = Site::open().await;
    let (key, stranger) = (client_key(Alg::Es256), client_key(Alg::EdDsa));
    register(&site, signing_client("signs", &[&key], SigningAlgorithm::Es256)).await;
    register(&site, signing_client("other", &[&stranger], SigningAlgorithm::Eddsa)).await;
    let with = |name: &str, value: Value| {
        let mut claims = assertion("signs", name);
        claims[name] = value;
        claims
    };
    for wrong in [
        with("aud", json!([ISSUER, "https://another.test"])),
        with("aud", json!([])),
        with("aud", json!(format!("{ISSUER}/oidc/par"))),
        with("aud", json!("https://another.test")),
        with("aud", json!(format!("{ISSUER}/"))),
        with("iss", json!("other")),
        with("sub", json!("other")),
        with("exp", json!(NOW - 60)),
        with("exp", json!(NOW + 24 * 3_600)),
        with("exp", Value::Null),
        with("iat", json!(NOW + 120)),
        with("nbf", json!(NOW + 120)),
        with("jti", Value::Null),
        with("jti", json!("")),
    ] {
        let page = asserted(&site, &key.sign("JWT", &wrong).unwrap(), &[]).await;
        assert_eq!(
            (page.status, &page.json()["error"]),
            (StatusCode::UNAUTHORIZED, &json!("invalid_client")),
            "{wrong}"
        );
    }
    let by_stranger = stranger.sign("JWT", &assertion("signs", "x")).unwrap();
    assert_eq!(asserted(&site, &by_stranger, &[]).await.json()["error"], "invalid_client");
    let good = |jti: &str| key.sign("JWT", &assertion("signs", jti)).unwrap();
    let none =
        format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), good("n").split('.').nth(1).unwrap());
    for garbage in [none.as_str(), "", "x", "a.b.c"] {
        assert!(asserted(&site, garbage, &[]).await.json()["error"].is_string(), "{garbage}");
    }
    // If it is mixed with another method, or contradicted, it is refused before anything is checked.
    let mixed = asserted(&site, &good("m"), &[("client_secret", SECRET)]).await;
    assert_eq!(mixed.json()["error"], "invalid_request");
    let form = [
        ("grant_type", "client_credentials"),
        ("client_assertion_type", ASSERTION_TYPE),
        ("client_assertion", &good("m")),
    ];
    let mixed = site.call("/oidc/token", &[basic("web", SECRET)], &form).await;
    assert_eq!(mixed.json()["error"], "invalid_request");
    assert_eq!(
        asserted(&site, &good("m"), &[("client_id", "other")]).await.json()["error"],
        "invalid_request"
    );
    let untyped = [("grant_type", "client_credentials"), ("client_assertion", &good("m"))];
    assert_eq!(site.call("/oidc/token", &[], &untyped).await.json()["error"], "invalid_request");
    // This client may not use other methods, and other clients may not use an assertion.
    assert_eq!(own_token(&site, "signs", &[]).await.json()["error"], "invalid_client");
    register(&site, client("job", with_grants(&[GrantType::ClientCredentials]))).await;
    let for_job = key.sign("JWT", &assertion("job", "j")).unwrap();
    assert_eq!(asserted(&site, &for_job, &[]).await.json()["error"], "invalid_client");
    assert_eq!(asserted(&site, &good("m"), &[]).await.status, StatusCode::OK, "unused until now");
}

#[tokio::test]
async fn an_assertion_counts_once_on_all_nodes() {
    let nodes = TestNode::start_cluster(3).await;
    let leader = nodes.iter().find(|node| node.cluster().is_leader()).unwrap();
    leader.auth().clone().ensure_signing_keys(None).await;
    let sites: Vec<Site> = nodes.into_iter().map(Site::of).collect();
    let key = client_key(Alg::EdDsa);
    register(&sites[0], signing_client("signs", &[&key], SigningAlgorithm::Eddsa)).await;
    for n in 0..4 {
        let one = key.sign("JWT", &assertion("signs", &n.to_string())).unwrap();
        let uses = (0..32).map(|n| asserted(&sites[n % 3], &one, &[]));
        let answers = futures_util::future::join_all(uses).await;
        assert_eq!(answers.iter().filter(|page| page.status == StatusCode::OK).count(), 1);
    }
}
