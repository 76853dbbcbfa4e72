//! Clients that authenticate by certificates (RFC 8705), over a real TLS listener.

use std::{net::SocketAddr, path::Path, sync::Arc};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use conclave_base::runtime::testing::SeededEntropy;
use conclave_config::Mtls;
use conclave_crypto::{jwk::Alg, jwt::JwtSigningKey};
use conclave_http::{HttpListener, ServerTls, TlsFiles};
use conclave_node::testing::TestNode;
use conclave_proto::command::v1::{
    ClientAuthMethod, ClientTokens, ConsentMode, CreateClient, GrantType, SigningAlgorithm,
    command::Body as Command,
};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
};
use serde_json::{Value, json};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::site::{Browser, PASSWORD, REDIRECT_URI, Site, digest, encoded, redemption};

/// A certificate and its key.
pub(crate) struct Own {
    pub der: CertificateDer<'static>,
    pub key: KeyPair,
}

pub(crate) struct Authority {
    params: CertificateParams,
    key: KeyPair,
}

pub(crate) fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params
}

fn self_signed(name: &str) -> Own {
    let key = KeyPair::generate().unwrap();
    Own { der: params(name).self_signed(&key).unwrap().der().clone(), key }
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { params, key: KeyPair::generate().unwrap() }
    }

    pub(crate) fn pem(&self) -> String {
        pem("CERTIFICATE", self.params.self_signed(&self.key).unwrap().der())
    }

    pub(crate) fn issue(&self, params: &CertificateParams) -> Own {
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&self.params, &self.key);
        Own { der: params.signed_by(&key, &issuer).unwrap().der().clone(), key }
    }
}

pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

fn thumbprint(own: &Own) -> String {
    URL_SAFE_NO_PAD.encode(digest(&own.der))
}

/// A site behind a TLS listener, and one without.
struct Front {
    site: Site,
    addr: SocketAddr,
    server: Own,
    authority: Authority,
    stop: CancellationToken,
}

impl Drop for Front {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Front {
    /// Opens the listener; it requests certificates of clients if `asks` is set.
    async fn open(asks: bool) -> Self {
        let mtls = Mtls { is_on: asks, has_authorities: asks, alias: None };
        let site = Site::of(TestNode::start_with(|settings| settings.mtls = mtls).await);
        site.seed().await;
        let (authority, server) = (Authority::new(), self_signed("localhost"));
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let certificate = pem("CERTIFICATE", &server.der);
        let certificate = write("server.pem", &certificate);
        let (key, ca) = (
            write("server.key", &pem("PRIVATE KEY", &server.key.serialize_der())),
            write("ca.pem", &authority.pem()),
        );
        let ca: Option<&Path> = Some(&ca);
        let files = TlsFiles { certificate: &certificate, key: &key, clients: asks.then_some(ca) };
        let tls = ServerTls::load(&files, Arc::clone(&site.node.runtime().clock)).unwrap();
        let listener = HttpListener::bind("http.tls.listen", "127.0.0.1:0".parse().unwrap()).await.unwrap();
        let listener = listener.with_tls(tls);
        let (addr, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        tokio::spawn(listener.serve(site.front(), stop.clone()));
        Self { site, addr, server, authority, stop }
    }

    async fn client(&self, id: &str, method: ClientAuthMethod, tokens: ClientTokens) {
        let grant_types =
            [GrantType::AuthorizationCode, GrantType::RefreshToken, GrantType::ClientCredentials];
        let tokens = ClientTokens { grant_types: grant_types.map(i32::from).to_vec(), ..tokens };
        let command = CreateClient {
            client_id: id.into(),
            name: id.into(),
            auth_method: method.into(),
            redirect_uris: vec![REDIRECT_URI.into()],
            scopes: ["openid", "offline_access", "jobs"].map(str::to_owned).to_vec(),
            signing_algorithm: SigningAlgorithm::Es256.into(),
            consent: ConsentMode::Implicit.into(),
            tokens: Some(tokens),
            ..CreateClient::default()
        };
        self.site.node.propose(Command::CreateClient(command)).await.unwrap();
    }

    /// One request over a new connection.
    async fn send(&self, own: Option<&Own>, request: Request<Full<Bytes>>) -> (StatusCode, Value) {
        let mut roots = RootCertStore::empty();
        roots.add(self.server.der.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(own.key.serialize_der()));
                builder.with_client_auth_cert(vec![own.der.clone()], key).unwrap()
            }
        };
        let stream = tokio::net::TcpStream::connect(self.addr).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let driving = tokio::spawn(connection);
        let answer = sender.send_request(request).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        driving.abort();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn post(&self, own: Option<&Own>, path: &str, form: &[(&str, &str)]) -> (StatusCode, Value) {
        let request = Request::post(path)
            .header("host", "localhost")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from(encoded(form))))
            .unwrap();
        self.send(own, request).await
    }

    async fn job(&self, own: Option<&Own>, id: &str) -> (StatusCode, Value) {
        self.post(own, "/oidc/token", &[("grant_type", "client_credentials"), ("client_id", id)]).await
    }

    async fn userinfo(&self, own: Option<&Own>, token: &str) -> StatusCode {
        let request = Request::get("/oidc/userinfo")
            .header("host", "localhost")
            .header("authorization", format!("Bearer {token}"));
        self.send(own, request.body(Full::default()).unwrap()).await.0
    }
}

fn named(name: &str) -> ClientTokens {
    ClientTokens { certificate_name: name.into(), ..ClientTokens::default() }
}

/// A key set with this certificate.
fn registered(own: &Own) -> ClientTokens {
    let pkcs8 = JwtSigningKey::generate_pkcs8(Alg::Es256, &*SeededEntropy::new(3)).unwrap();
    let mut jwk = JwtSigningKey::from_pkcs8(Alg::Es256, &pkcs8).unwrap().public_jwk();
    jwk["x5c"] = json!([STANDARD.encode(&own.der)]);
    ClientTokens { jwks: json!({ "keys": [jwk] }).to_string().into_bytes(), ..ClientTokens::default() }
}

fn bound_to(token: &Value) -> Value {
    let claims = token["access_token"].as_str().unwrap().split('.').nth(1).unwrap().to_owned();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    claims["cnf"]["x5t#S256"].clone()
}

#[tokio::test]
async fn a_certificate_of_an_authority_counts_under_the_registered_name_and_nothing_else_does() {
    let front = Front::open(true).await;
    front.client("svc", ClientAuthMethod::TlsClientAuth, named("san_dns=svc.test")).await;
    let good = front.authority.issue(&params("svc.test"));
    let (status, token) = front.job(Some(&good), "svc").await;
    assert_eq!(status, StatusCode::OK, "{token}");
    assert_eq!((bound_to(&token), &token["token_type"]), (json!(thumbprint(&good)), &json!("Bearer")));

    let mut expired = params("svc.test");
    (expired.not_before, expired.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2026, 1, 1));
    let mut for_servers = params("svc.test");
    for_servers.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for (why, own) in [
        ("another name", front.authority.issue(&params("other.test"))),
        ("nobody issued it", self_signed("svc.test")),
        ("another authority", Authority::new().issue(&params("svc.test"))),
        ("expired", front.authority.issue(&expired)),
        ("not for clients", front.authority.issue(&for_servers)),
    ] {
        let (status, answer) = front.job(Some(&own), "svc").await;
        assert_eq!((status, &answer["error"]), (StatusCode::UNAUTHORIZED, &json!("invalid_client")), "{why}");
    }
    assert_eq!(front.job(None, "svc").await.0, StatusCode::UNAUTHORIZED);
    // A certificate does not authenticate a client that is registered for another method, nor may a secret be sent with
    // it.
    assert_eq!(front.job(Some(&good), "web").await.0, StatusCode::UNAUTHORIZED);
    let both = [("grant_type", "client_credentials"), ("client_id", "svc"), ("client_secret", "x")];
    assert_eq!(front.post(Some(&good), "/oidc/token", &both).await.0, StatusCode::UNAUTHORIZED);
    // Without TLS there is no certificate, whatever a header claims.
    let headers =
        [("x-client-cert", STANDARD.encode(&good.der)), ("ssl-client-verify", "SUCCESS".to_owned())];
    let form = [("grant_type", "client_credentials"), ("client_id", "svc")];
    let page = front.site.call("/oidc/token", &headers, &form).await;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_certificate_that_the_client_registered_counts_whoever_issued_it() {
    let front = Front::open(true).await;
    let own = self_signed("anything");
    front.client("own", ClientAuthMethod::SelfSignedTlsClientAuth, registered(&own)).await;
    let (status, token) = front.job(Some(&own), "own").await;
    assert_eq!((status, bound_to(&token)), (StatusCode::OK, json!(thumbprint(&own))));
    for other in [self_signed("anything"), front.authority.issue(&params("anything"))] {
        assert_eq!(front.job(Some(&other), "own").await.0, StatusCode::UNAUTHORIZED);
    }
    // The client sees its own token, with the certificate to which it is bound.
    let text = token["access_token"].as_str().unwrap();
    let (_, facts) =
        front.post(Some(&own), "/oidc/introspect", &[("client_id", "own"), ("token", text)]).await;
    assert_eq!((&facts["active"], &facts["cnf"]["x5t#S256"]), (&json!(true), &json!(thumbprint(&own))));
}

#[tokio::test]
async fn a_bound_token_counts_only_with_its_certificate() {
    let front = Front::open(true).await;
    let (own, other) = (self_signed("anything"), self_signed("anything"));
    front.client("own", ClientAuthMethod::SelfSignedTlsClientAuth, registered(&own)).await;
    let url = Site::authorize_url("own", &[("scope", "openid offline_access")]);
    let page = front.site.sign_in_at(&mut Browser::default(), &url, "ada", PASSWORD).await;
    let code = page.parameter("code").unwrap();
    let form = [redemption(&code).to_vec(), vec![("client_id", "own")]].concat();
    assert_eq!(front.post(Some(&other), "/oidc/token", &form).await.0, StatusCode::UNAUTHORIZED);
    let (status, tokens) = front.post(Some(&own), "/oidc/token", &form).await;
    assert_eq!(status, StatusCode::OK, "{tokens}");
    let token = tokens["access_token"].as_str().unwrap();
    assert_eq!(front.userinfo(Some(&own), token).await, StatusCode::OK);
    assert_eq!(front.userinfo(Some(&other), token).await, StatusCode::UNAUTHORIZED);
    assert_eq!(front.userinfo(None, token).await, StatusCode::UNAUTHORIZED);
    assert_eq!(front.site.userinfo(token).await.status, StatusCode::UNAUTHORIZED);
    let refresh = tokens["refresh_token"].as_str().unwrap();
    let form = [("grant_type", "refresh_token"), ("refresh_token", refresh), ("client_id", "own")];
    assert_eq!(front.post(None, "/oidc/token", &form).await.0, StatusCode::UNAUTHORIZED);
    let (status, tokens) = front.post(Some(&own), "/oidc/token", &form).await;
    assert_eq!((status, bound_to(&tokens)), (StatusCode::OK, json!(thumbprint(&own))));
}

#[tokio::test]
async fn metadata_says_what_is_true_and_where_nobody_is_asked_no_certificate_counts() {
    let (on, off) = (Front::open(true).await, Front::open(false).await);
    let get = || {
        Request::get("/.well-known/openid-configuration").header("host", "localhost").body(Full::default())
    };
    for (front, asks) in [(&on, true), (&off, false)] {
        let (_, document) = front.send(None, get().unwrap()).await;
        let methods = document["token_endpoint_auth_methods_supported"].as_array().unwrap();
        for method in ["tls_client_auth", "self_signed_tls_client_auth"] {
            assert_eq!(methods.contains(&json!(method)), asks, "{method}");
        }
        assert_eq!(document["tls_client_certificate_bound_access_tokens"], asks);
        assert!(document.get("mtls_endpoint_aliases").is_none(), "there is no other address");
    }
    let own = self_signed("anything");
    off.client("own", ClientAuthMethod::SelfSignedTlsClientAuth, registered(&own)).await;
    assert_eq!(off.job(Some(&own), "own").await.0, StatusCode::UNAUTHORIZED);
}
