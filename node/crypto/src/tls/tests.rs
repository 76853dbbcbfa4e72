use std::io;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{Authority, ClusterTls, PEER_NAME, TlsFault, certified_node_id, explain, node_name};
use crate::keys::ClusterKeys;
use crate::secret::{ClusterSecret, SecretRing};
use conclave_base::runtime::testing::SeededEntropy;

fn keys(seed: u64) -> ClusterKeys {
    ClusterKeys::derive(&ClusterSecret::generate(SeededEntropy::new(seed).as_ref()))
}

fn roots_of(keys: &ClusterKeys) -> std::sync::Arc<rustls::RootCertStore> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(Authority::of(keys).unwrap().certificate().unwrap()).unwrap();
    std::sync::Arc::new(roots)
}

fn ring(current: u64, accepted: &[u64]) -> ClusterKeys {
    let secret = |seed: u64| ClusterSecret::generate(SeededEntropy::new(seed).as_ref());
    let accepted = accepted.iter().map(|seed| secret(*seed)).collect();
    ClusterKeys::ring(&SecretRing { current: secret(current), accepted })
}

#[tokio::test]
async fn nodes_of_neighbouring_phases_talk_and_those_two_phases_apart_do_not() {
    let phases = [ring(1, &[]), ring(1, &[2]), ring(2, &[1]), ring(2, &[])];
    let nodes: Vec<_> = phases.iter().zip(1..).map(|(keys, id)| node(keys, id)).collect();
    for (one, two) in [(0, 1), (1, 2), (2, 3)] {
        for (client, server) in [(one, two), (two, one)] {
            let [called, answered] = converse(&nodes[client], &nodes[server], PEER_NAME).await;
            assert!(called.is_ok() && answered.is_ok(), "{client} to {server}");
        }
    }
    let [called, _] = converse(&nodes[3], &nodes[0], PEER_NAME).await;
    assert_eq!(fault(&called), TlsFault::OtherSecret);
}

fn node(keys: &ClusterKeys, id: u64) -> ClusterTls {
    ClusterTls::new(keys, id, SeededEntropy::new(100 + id).as_ref()).unwrap()
}

/// Each side sends a message and reads one. Returns the result of each side.
async fn converse(client: &ClusterTls, server: &ClusterTls, name: &str) -> [io::Result<Option<u64>>; 2] {
    let (near, far) = duplex(64 * 1024);
    let [client, server] = [client.clone(), server.clone()];
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let calling = async move {
        let mut tls = TlsConnector::from(client.client_config()).connect(name, near).await?;
        tls.write_all(b"hello").await?;
        tls.read_exact(&mut [0; 5]).await?;
        Ok(tls.get_ref().1.peer_certificates().and_then(|chain| certified_node_id(chain.first()?)))
    };
    let (called, answered) = tokio::join!(calling, answer(server, far));
    [called, answered]
}

async fn answer(server: ClusterTls, stream: DuplexStream) -> io::Result<Option<u64>> {
    let mut tls = TlsAcceptor::from(server.server_config()).accept(stream).await?;
    tls.read_exact(&mut [0; 5]).await?;
    tls.write_all(b"hello").await?;
    tls.shutdown().await?;
    Ok(tls.get_ref().1.peer_certificates().and_then(|chain| certified_node_id(chain.first()?)))
}

fn fault(result: &io::Result<Option<u64>>) -> TlsFault {
    let error = result.as_ref().expect_err("the connection was refused");
    explain(error).unwrap_or_else(|| panic!("{error:?} is explained"))
}

#[tokio::test]
async fn two_nodes_of_one_secret_talk_and_know_each_other() {
    let keys = keys(1);
    let (one, two) = (node(&keys, 1), node(&keys, 2));
    for name in [PEER_NAME, &node_name(2)] {
        let [called, answered] = converse(&one, &two, name).await;
        assert_eq!((called.unwrap(), answered.unwrap()), (Some(2), Some(1)));
    }
}

#[tokio::test]
async fn a_node_with_another_secret_is_refused_and_both_sides_say_why() {
    let (ours, theirs) = (node(&keys(1), 1), node(&keys(2), 2));
    for (client, server) in [(&ours, &theirs), (&theirs, &ours)] {
        let [called, answered] = converse(client, server, PEER_NAME).await;
        assert_eq!(fault(&called), TlsFault::OtherSecret);
        assert_eq!(fault(&answered), TlsFault::RefusedAsOtherSecret);
    }
    assert!(TlsFault::OtherSecret.to_string().contains("certificate of another cluster secret"));
}

#[tokio::test]
async fn a_client_refused_by_the_server_learns_it_with_its_first_read() {
    // It trusts our authority, so its own handshake succeeds, but its certificate is from another authority.
    let (ours, theirs) = (keys(1), keys(2));
    let foreign = Authority::of(&theirs).unwrap().mint(3, SeededEntropy::new(9).as_ref()).unwrap();
    let intruder = ClusterTls::assemble(roots_of(&ours), foreign).unwrap();
    let [called, answered] = converse(&intruder, &node(&ours, 1), PEER_NAME).await;
    assert_eq!(fault(&called), TlsFault::RefusedAsOtherSecret);
    assert_eq!(fault(&answered), TlsFault::OtherSecret);
}

#[tokio::test]
async fn a_node_under_a_wrong_address_is_told_from_the_one_meant() {
    let keys = keys(1);
    let [called, _] = converse(&node(&keys, 1), &node(&keys, 2), &node_name(3)).await;
    assert_eq!(fault(&called), TlsFault::OtherNode);
}

#[tokio::test]
async fn something_that_speaks_no_tls_is_named_as_such() {
    let (near, mut far) = duplex(1024);
    far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let name = ServerName::try_from(PEER_NAME).unwrap();
    let refused = TlsConnector::from(node(&keys(1), 1).client_config()).connect(name, near).await;
    assert_eq!(explain(&refused.unwrap_err()), Some(TlsFault::NotClusterPlane));
}

#[test]
fn an_error_of_no_tls_is_left_alone() {
    let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
    assert_eq!(explain(&refused), None);
}
