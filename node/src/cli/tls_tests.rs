//! Tests of the command line against an admin API behind a TLS proxy.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rcgen::{CertificateParams, KeyPair};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::testing::{ApiRole, TestNode};

use super::tests::run_at;

fn pem(der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

/// A proxy for `localhost` in front of this API. Returns its URL, and the file of the authority that signed its
/// certificate.
async fn behind_tls(api: SocketAddr, dir: &tempfile::TempDir) -> (String, PathBuf) {
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let authority = dir.path().join("authority.pem");
    std::fs::write(&authority, pem(certificate.der())).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut client) = acceptor.accept(stream).await else { return };
                let mut api = TcpStream::connect(api).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut api).await;
            });
        }
    });
    (format!("https://localhost:{port}"), authority)
}

#[tokio::test]
async fn an_api_behind_https_is_reached_only_if_its_certificate_is_vouched_for() {
    let node = TestNode::start().await;
    let (_, token) = node.api_token(ApiRole::Admin).await;
    let dir = tempfile::tempdir().unwrap();
    let api = node.api_url().trim_start_matches("http://").parse().unwrap();
    let (url, authority) = behind_tls(api, &dir).await;
    let authority = authority.display().to_string();
    let list = ["user", "list", "--api-ca", &authority];
    assert!(run_at(&url, &token, &list).await.unwrap().as_array().unwrap().is_empty());
    assert!(
        run_at(&url, &token, &["user", "create", "ada", "--no-password", "--api-ca", &authority])
            .await
            .is_ok()
    );
    let other = dir.path().join("other.pem");
    let key = KeyPair::generate().unwrap();
    let unrelated = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(&other, pem(unrelated.der())).unwrap();
    let refused = run_at(&url, &token, &["user", "list", "--api-ca", &other.display().to_string()]).await;
    assert_eq!(refused, Err(6));
    let missing = run_at(&url, &token, &["user", "list", "--api-ca", "/no/such/file"]).await;
    assert_eq!(missing, Err(2));
}
