//! The archive in a bucket: a node of one, and an S3-compatible server that checks every signature, in this process.

use std::{
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use conclave_node::{
    archive::{
        Archive, ArchiveError, Options, Target,
        read::{self, Until},
    },
    config::{self, Config, Environment},
    crypto::keys::ClusterKeys,
    testing::TestNode,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};

const KEY: &str = "archivist";
const SECRET: &str = "not-a-secret-of-anybody";

/// Serves the buckets below `root` until the test ends.
async fn serve(root: &Path) -> SocketAddr {
    std::fs::create_dir(root.join("backups")).unwrap();
    let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root).unwrap());
    service.set_auth(SimpleAuth::from_single(KEY, SECRET));
    let service = service.build();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service.clone();
            tokio::spawn(async move {
                let builder = Builder::new(TokioExecutor::new());
                // A client that goes is no failure.
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

fn settings(server: SocketAddr, secret: &str) -> config::Archive {
    let endpoint = format!("http://{server}");
    let environment = Environment::of([
        ("CONCLAVE_ARCHIVE__TARGET", "s3://backups/one/two"),
        ("CONCLAVE_ARCHIVE__ENDPOINT", endpoint.as_str()),
        ("CONCLAVE_ARCHIVE__ACCESS_KEY_ID", KEY),
        ("CONCLAVE_ARCHIVE__SECRET_ACCESS_KEY", secret),
    ]);
    Config::from_sources(None, &environment).unwrap().archive
}

fn keys() -> Arc<ClusterKeys> {
    Arc::new(ClusterKeys::derive(&TestNode::secret()))
}

async fn until(node: &TestNode, is_so: impl Fn(&conclave_proto::cluster::v1::ArchiveStatus) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let status = node.cluster().member_statuses().await.pop().unwrap().status.unwrap();
        if status.archive.as_ref().is_some_and(&is_so) {
            return;
        }
        assert!(Instant::now() < deadline, "it does not become so: {:?}", status.archive);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_archived_to_a_bucket_and_read_back() {
    let (root, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = serve(root.path()).await;
    let node = TestNode::start().await;
    let options = Options {
        settings: settings(server, SECRET),
        longest_life: Duration::from_mins(1),
        keys: keys(),
        runtime: node.runtime().clone(),
    };
    let archive = Archive::start(options, node.cluster().clone()).unwrap();
    until(&node, |status| status.last_snapshot_index > 0).await;
    for n in 0..20 {
        node.create_user(&format!("user-{n}"), "", &[]).await;
    }
    let written = node.cluster().view().index();
    until(&node, |status| status.archived_index >= written).await;
    archive.stop();

    let reader = read::open(&settings(server, SECRET), &keys()).await.unwrap();
    let mut bytes = 0;
    let fetched = reader
        .restore(Until::Latest, &into.path().join("back"), &mut |step| bytes = step.bytes)
        .await
        .unwrap();
    assert!(bytes > fetched.snapshot.size_bytes);
    let from = fetched.plan.snapshot.last + 1;
    let records: Vec<_> = fetched.records().collect::<Result<_, _>>().unwrap();
    let mut own = node.cluster().log_entries(from, usize::MAX).await.unwrap();
    own.truncate(records.len());
    assert!(records.last().unwrap().index >= written);
    assert_eq!(records, own, "what comes back is the log");

    let objects = archive.objects().await.unwrap();
    assert!(objects.len() >= 2);
    assert_eq!(archive.prune(true).await.unwrap(), archive.prune(false).await.unwrap());
    assert_eq!(archive.objects().await.unwrap(), objects, "nothing of it was old");
}

#[tokio::test]
async fn a_bucket_takes_no_object_twice_and_nobody_elses_key() {
    let root = tempfile::tempdir().unwrap();
    let server = serve(root.path()).await;
    let target = Target::open(&settings(server, SECRET)).unwrap();
    target.put_new("a/b", vec![1; 10]).await.unwrap();
    target.put_new("a/b", vec![1; 10]).await.expect("an unanswered write, sent again");
    let refused = target.put_new("a/b", vec![2; 11]).await.unwrap_err();
    assert!(matches!(refused, ArchiveError::Store { .. }), "{refused}");
    assert_eq!(target.get("a/b", 100).await.unwrap(), [1; 10]);
    assert!(matches!(target.get("a/b", 9).await, Err(ArchiveError::TooLarge { .. })));
    // Parts of eight MiB, and the last.
    let large: Vec<u8> = (0..20_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let (file, back) = (root.path().join("large"), root.path().join("back"));
    std::fs::write(&file, &large).unwrap();
    let there = target.put_file("a/large", &file).await.unwrap();
    assert_eq!(target.get_file("a/large", &back, &mut |_| ()).await.unwrap(), there);
    assert_eq!(std::fs::read(&back).unwrap(), large);
    target.delete("a/b").await.unwrap();
    target.delete("a/b").await.expect("gone already");

    let stranger = Target::open(&settings(server, "another")).unwrap();
    let refused = stranger.put_new("a/c", vec![1]).await.unwrap_err().to_string();
    assert!(refused.contains("a/c") && !refused.contains("another"), "{refused}");
    let shown = format!("{:?} {stranger:?}", settings(server, SECRET));
    assert!(!shown.contains(SECRET) && !shown.contains("another"), "{shown}");
}
