//! DPoP through the real router: the binding of tokens to a key, the validity of a proof, and its single use.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use axum::body::Body;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use conclave_node::testing::{START_MS, TestNode};
use conclave_proto::command::v1::{ClientTokens, CreateClient, GrantType, command::Body as Command};
use http::{Request, StatusCode};
use serde_json::{Value, json};

use super::{
    oidc_tokens::{claims, client, with_grants},
    site::{Browser, PASSWORD, Page, SECRET, Site, basic, digest, redemption},
};

pub(super) const TOKEN: &str = "http://127.0.0.1:9000/oidc/token";
pub(super) const USERINFO: &str = "http://127.0.0.1:9000/oidc/userinfo";

/// A client's key, its nonce, and the time in its proofs.
pub(super) struct Prover {
    pair: EcdsaKeyPair,
    nonce: String,
    made: AtomicU64,
    iat: u64,
}

impl Prover {
    /// With a nonce, obtained as clients do: from a refusal.
    pub(super) async fn at(site: &Site) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let prover = Self { pair, nonce: String::new(), made: AtomicU64::new(0), iat: START_MS / 1_000 };
        let page = site
            .call("/oidc/token", &[("dpop", prover.proof("POST", TOKEN, None))], &[("client_id", "spa")])
            .await;
        assert_eq!((page.status, &page.json()["error"]), (StatusCode::BAD_REQUEST, &json!("use_dpop_nonce")));
        let nonce = page.headers["dpop-nonce"].to_str().unwrap().to_owned();
        Self { nonce, ..prover }
    }

    fn jwk(&self) -> Value {
        let point = &self.pair.public_key().as_ref()[1..];
        let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({"crv": "P-256", "kty": "EC", "x": b64(&point[..32]), "y": b64(&point[32..])})
    }

    fn thumbprint(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest(self.jwk().to_string().as_bytes()))
    }

    fn claims(&self, method: &str, url: &str, token: Option<&str>) -> Value {
        let made = self.made.fetch_add(1, Ordering::Relaxed);
        let mut claims = json!({"jti": format!("proof {made}"), "htm": method, "htu": url, "iat": self.iat});
        if !self.nonce.is_empty() {
            claims["nonce"] = json!(self.nonce);
        }
        if let Some(token) = token {
            claims["ath"] = json!(URL_SAFE_NO_PAD.encode(digest(token.as_bytes())));
        }
        claims
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let b64 = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", b64(header), b64(claims));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }

    fn header(&self) -> Value {
        json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk()})
    }

    pub(super) fn proof(&self, method: &str, url: &str, token: Option<&str>) -> String {
        self.sign(&self.header(), &self.claims(method, url, token))
    }
}

pub(super) async fn redeem(site: &Site, code: &str, proof: Option<String>) -> Page {
    let headers: Vec<_> = proof.map(|proof| ("dpop", proof)).into_iter().collect();
    site.call("/oidc/token", &headers, &[&redemption(code)[..], &[("client_id", "spa")]].concat()).await
}

async fn refresh(site: &Site, token: &str, proof: Option<String>) -> Page {
    let headers: Vec<_> = proof.map(|proof| ("dpop", proof)).into_iter().collect();
    let form = [("grant_type", "refresh_token"), ("refresh_token", token), ("client_id", "spa")];
    site.call("/oidc/token", &headers, &form).await
}

pub(super) async fn userinfo(site: &Site, scheme: &str, token: &str, proofs: &[String]) -> Page {
    let mut request = Request::get("/oidc/userinfo").header("authorization", format!("{scheme} {token}"));
    for proof in proofs {
        request = request.header("dpop", proof);
    }
    site.send("192.0.2.1", request.body(Body::empty()).unwrap()).await
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value}")).to_owned()
}

fn challenge(page: &Page) -> &str {
    page.headers["www-authenticate"].to_str().unwrap()
}

#[tokio::test]
async fn tokens_are_bound_to_the_key_and_good_with_it_alone() {
    let site = Site::open().await;
    let (key, thief) = (Prover::at(&site).await, Prover::at(&site).await);
    let code = site.code("spa", &[]).await;
    let page = redeem(&site, &code, Some(key.proof("POST", TOKEN, None))).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text);
    assert!(page.headers.contains_key("dpop-nonce"));
    let tokens = page.json();
    let access = text(&tokens["access_token"]);
    assert_eq!(tokens["token_type"], "DPoP");
    assert_eq!(claims(&access)["cnf"]["jkt"], key.thumbprint());

    let proof = || key.proof("GET", USERINFO, Some(&access));
    assert_eq!(userinfo(&site, "DPoP", &access, &[proof()]).await.status, StatusCode::OK);
    let bearer = userinfo(&site, "Bearer", &access, &[]).await;
    assert_eq!(bearer.status, StatusCode::UNAUTHORIZED);
    assert!(challenge(&bearer).starts_with("DPoP error=\"invalid_token\""), "{}", challenge(&bearer));
    for (scheme, proofs) in [
        ("DPoP", vec![]),
        ("DPoP", vec![thief.proof("GET", USERINFO, Some(&access))]),
        ("DPoP", vec![key.proof("GET", USERINFO, None)]),
        ("DPoP", vec![key.proof("GET", USERINFO, Some("another token"))]),
        ("DPoP", vec![key.proof("POST", USERINFO, Some(&access))]),
        ("DPoP", vec![key.proof("GET", TOKEN, Some(&access))]),
        ("DPoP", vec![proof(), proof()]),
        ("Bearer", vec![proof()]),
    ] {
        let page = userinfo(&site, scheme, &access, &proofs).await;
        assert_eq!(page.status, StatusCode::UNAUTHORIZED, "{scheme} {proofs:?}");
    }
    // A proof does not make a plain token a bound one.
    let code = site.code("spa", &[]).await;
    let plain = text(&redeem(&site, &code, None).await.json()["access_token"]);
    let page = userinfo(&site, "DPoP", &plain, &[key.proof("GET", USERINFO, Some(&plain))]).await;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_proof_counts_once_for_whatever_it_was_made() {
    let site = Site::open().await;
    let key = Prover::at(&site).await;
    let (first, second) = (site.code("spa", &[]).await, site.code("spa", &[]).await);
    let proof = key.proof("POST", TOKEN, None);
    let access = text(&redeem(&site, &first, Some(proof.clone())).await.json()["access_token"]);
    let again = redeem(&site, &second, Some(proof)).await;
    assert_eq!(
        (again.status, &again.json()["error"]),
        (StatusCode::BAD_REQUEST, &json!("invalid_dpop_proof"))
    );
    assert_eq!(redeem(&site, &second, Some(key.proof("POST", TOKEN, None))).await.status, StatusCode::OK);

    let proof = key.proof("GET", USERINFO, Some(&access));
    let many = futures_util::future::join_all(
        (0..32).map(|_| userinfo(&site, "DPoP", &access, std::slice::from_ref(&proof))),
    )
    .await;
    assert_eq!(many.iter().filter(|page| page.status == StatusCode::OK).count(), 1);
    let replayed = many.iter().find(|page| page.status != StatusCode::OK).unwrap();
    assert!(challenge(replayed).contains("invalid_dpop_proof"), "{}", challenge(replayed));
}

#[tokio::test]
async fn a_proof_counts_once_on_all_nodes_and_a_nonce_is_good_on_each() {
    let mut nodes = TestNode::start_cluster(3).await;
    let first = Site::of(nodes.remove(0));
    first.node.create_user("ada", PASSWORD, &[]).await;
    let leader = [&first.node].into_iter().chain(&nodes).find(|node| node.cluster().is_leader()).unwrap();
    leader.auth().clone().ensure_signing_keys(None).await;
    let both = [GrantType::AuthorizationCode, GrantType::RefreshToken];
    let spa = CreateClient {
        auth_method: conclave_proto::command::v1::ClientAuthMethod::None.into(),
        secret_hash: Vec::new(),
        ..client("spa", with_grants(&both))
    };
    first.node.propose(Command::CreateClient(spa)).await.unwrap();
    let sites: Vec<Site> = [first].into_iter().chain(nodes.into_iter().map(Site::of)).collect();
    let key = Prover::at(&sites[0]).await;
    let code = sites[1].code("spa", &[]).await;
    let tokens = redeem(&sites[2], &code, Some(key.proof("POST", TOKEN, None))).await.json();
    let access = text(&tokens["access_token"]);
    for _ in 0..4 {
        let proof = [key.proof("GET", USERINFO, Some(&access))];
        let uses = (0..32).map(|n| userinfo(&sites[n % 3], "DPoP", &access, &proof));
        let answers = futures_util::future::join_all(uses).await;
        assert_eq!(answers.iter().filter(|page| page.status == StatusCode::OK).count(), 1);
    }
}

#[tokio::test]
async fn what_is_wrong_in_a_proof_is_refused() {
    let site = Site::open().await;
    let key = Prover::at(&site).await;
    let code = site.code("spa", &[]).await;
    let with = |name: &str, value: Value| {
        let mut claims = key.claims("POST", TOKEN, None);
        claims[name] = value;
        key.sign(&key.header(), &claims)
    };
    let headed = |name: &str, value: Value| {
        let mut header = key.header();
        header[name] = value;
        key.sign(&header, &key.claims("POST", TOKEN, None))
    };
    let mut private = key.jwk();
    private["d"] = json!("AA");
    let now = START_MS / 1_000;
    for wrong in [
        with("htm", json!("GET")),
        with("htm", json!("post")),
        with("htu", json!(USERINFO)),
        with("htu", json!("/oidc/token")),
        with("iat", json!(now - 61)),
        with("iat", json!(now + 31)),
        with("iat", json!("now")),
        with("jti", json!("")),
        with("jti", Value::Null),
        headed("typ", json!("JWT")),
        headed("alg", json!("none")),
        headed("alg", json!("HS256")),
        headed("jwk", private),
        headed("jwk", json!({"kty": "oct", "k": "AA"})),
        headed("crit", json!(["x"])),
        "x".to_owned(),
        "a.b.c".to_owned(),
    ] {
        let page = redeem(&site, &code, Some(wrong.clone())).await;
        assert_eq!(
            (page.status, &page.json()["error"]),
            (StatusCode::BAD_REQUEST, &json!("invalid_dpop_proof")),
            "{wrong}"
        );
    }
    for nonce in [json!("x"), json!(""), Value::Null] {
        let page = redeem(&site, &code, Some(with("nonce", nonce))).await;
        assert_eq!(page.json()["error"], "use_dpop_nonce");
    }
    let two = [("dpop", key.proof("POST", TOKEN, None)), ("dpop", key.proof("POST", TOKEN, None))];
    let form = [&redemption(&code)[..], &[("client_id", "spa")]].concat();
    assert_eq!(site.call("/oidc/token", &two, &form).await.json()["error"], "invalid_dpop_proof");
    // None of them used up the code; and `htu` is compared as a URL.
    let elsewhere = with("htu", json!("HTTP://127.0.0.1:9000/oidc/./token?x=1#f"));
    assert_eq!(redeem(&site, &code, Some(elsewhere)).await.status, StatusCode::OK);

    site.node.clock().advance(Duration::from_mins(5));
    let late = Prover { iat: now + 300, ..key };
    let page = redeem(&site, &site.code("spa", &[]).await, Some(late.proof("POST", TOKEN, None))).await;
    assert_eq!(page.json()["error"], "use_dpop_nonce", "the nonce has had its time");
}

#[tokio::test]
async fn a_public_clients_refresh_tokens_follow_the_key() {
    let site = Site::open().await;
    let (key, thief) = (Prover::at(&site).await, Prover::at(&site).await);
    let code = site.code("spa", &[]).await;
    let tokens = redeem(&site, &code, Some(key.proof("POST", TOKEN, None))).await.json();
    let first = text(&tokens["refresh_token"]);
    for proof in [None, Some(thief.proof("POST", TOKEN, None))] {
        assert_eq!(refresh(&site, &first, proof).await.json()["error"], "invalid_grant");
    }
    let next = refresh(&site, &first, Some(key.proof("POST", TOKEN, None))).await.json();
    assert_eq!(next["token_type"], "DPoP");
    assert_eq!(claims(&text(&next["access_token"]))["cnf"]["jkt"], key.thumbprint());
}

#[tokio::test]
async fn a_code_asked_for_with_a_key_is_redeemed_with_it_alone() {
    let site = Site::open().await;
    let (key, thief) = (Prover::at(&site).await, Prover::at(&site).await);
    let jkt = key.thumbprint();
    let code = site.code("spa", &[("dpop_jkt", &jkt)]).await;
    for proof in [None, Some(thief.proof("POST", TOKEN, None))] {
        assert_eq!(redeem(&site, &code, proof).await.json()["error"], "invalid_grant");
    }
    assert_eq!(redeem(&site, &code, Some(key.proof("POST", TOKEN, None))).await.status, StatusCode::OK);
    let malformed = Site::authorize_url("spa", &[("dpop_jkt", "x")]);
    let page = site.get(&mut Browser::default(), &malformed).await;
    assert_eq!(page.parameter("error").as_deref(), Some("invalid_request"));
}

#[tokio::test]
async fn a_client_that_must_show_a_key_gets_nothing_without() {
    let site = Site::open().await;
    let tokens = ClientTokens {
        dpop_bound: true,
        ..with_grants(&[GrantType::ClientCredentials, GrantType::AuthorizationCode, GrantType::TokenExchange])
    };
    site.node.propose(Command::CreateClient(client("bound", tokens))).await.unwrap();
    let key = Prover::at(&site).await;
    let code = site.code("bound", &[]).await;
    assert_eq!(site.redeem("bound", &code).await.json()["error"], "invalid_request");
    let form = [("grant_type", "client_credentials")];
    assert_eq!(site.token(Some(("bound", SECRET)), &form).await.json()["error"], "invalid_request");

    let headers = [basic("bound", SECRET), ("dpop", key.proof("POST", TOKEN, None))];
    let own = site.call("/oidc/token", &headers, &form).await;
    assert_eq!((own.status, &own.json()["token_type"]), (StatusCode::OK, &json!("DPoP")));
    let replayed = site.call("/oidc/token", &headers, &form).await;
    assert_eq!(replayed.json()["error"], "invalid_dpop_proof");
    let own = text(&own.json()["access_token"]);
    let told = site.call("/oidc/introspect", &[basic("bound", SECRET)], &[("token", &own)]).await.json();
    assert_eq!((&told["cnf"]["jkt"], &told["token_type"]), (&json!(key.thumbprint()), &json!("DPoP")));

    // A bound token is exchanged by the client that has its key.
    let headers = [basic("bound", SECRET), ("dpop", key.proof("POST", TOKEN, None))];
    let tokens = site.call("/oidc/token", &headers, &redemption(&code)).await.json();
    let subject = text(&tokens["access_token"]);
    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", subject.as_str()),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
    ];
    let thief = Prover::at(&site).await;
    let headers = [basic("bound", SECRET), ("dpop", thief.proof("POST", TOKEN, None))];
    assert_eq!(site.call("/oidc/token", &headers, &form).await.json()["error"], "invalid_request");
    let headers = [basic("bound", SECRET), ("dpop", key.proof("POST", TOKEN, None))];
    assert_eq!(site.call("/oidc/token", &headers, &form).await.status, StatusCode::OK);
}
