//! The archive in a bucket: a node, and an S3-compatible server that checks every signature, in this process.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use conclave_archive::{
    Archive, ArchiveError, ArchiveOptions, ArchiveTarget,
    names::{self, ObjectKind},
    read::{self, Until},
};
use conclave_config::{self, Config, Environment};
use conclave_crypto::keys::ClusterKeys;
use conclave_dr::archived;
use conclave_node::testing::TestNode;
use conclave_proto::command::v1::{UpdateUser, command::Body};
use conclave_state::State;
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
                // A client that disconnects is not a failure.
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

fn settings(server: SocketAddr, secret: &str) -> conclave_config::ArchiveConfig {
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
    let options = ArchiveOptions {
        settings: settings(server, SECRET),
        longest_session: Duration::from_mins(1),
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

/// An archive in a directory, with a separate segment of the log for each of three users; the last of them disabled
/// `first`.
async fn in_three_pieces(place: &Path) -> (conclave_config::ArchiveConfig, u64, u64) {
    let node = TestNode::start().await;
    let target = format!("file://{}", place.display());
    let environment = Environment::of([("CONCLAVE_ARCHIVE__TARGET", target.as_str())]);
    let settings = Config::from_sources(None, &environment).unwrap().archive;
    let options = ArchiveOptions {
        settings: settings.clone(),
        longest_session: Duration::from_mins(1),
        keys: keys(),
        runtime: node.runtime().clone(),
    };
    let archive = Archive::start(options, node.cluster().clone()).unwrap();
    until(&node, |status| status.last_snapshot_index > 0).await;
    let mut indexes = Vec::new();
    let mut first = None;
    for name in ["first", "second", "third"] {
        let id = node.create_user(name, "", &[]).await;
        if name == "third" {
            let user_id = first.unwrap_or(id).to_vec();
            let command = UpdateUser { user_id, disabled: Some(true), ..UpdateUser::default() };
            node.propose(Body::UpdateUser(command)).await.unwrap();
        }
        first = first.or(Some(id));
        let written = node.cluster().view().index();
        until(&node, |status| status.archived_index >= written).await;
        indexes.push(written);
    }
    archive.stop();
    (settings, indexes[0], indexes[1])
}

/// The segment of the log that contains this entry.
fn piece(place: &Path, index: u64) -> PathBuf {
    let mut folders = vec![place.to_owned()];
    let mut found = None;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let own = path.strip_prefix(place).unwrap().to_str().unwrap();
            let object = names::parse(own, 1).unwrap();
            if object.kind == ObjectKind::Log && (object.first..=object.last).contains(&index) {
                found = Some(path);
            }
        }
    }
    found.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_with_a_broken_log_is_restored_to_before_it_and_nothing_revoked_comes_back() {
    let (place, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (settings, first, second) = in_three_pieces(place.path()).await;
    let broken = piece(place.path(), second);
    let whole = std::fs::read(&broken).unwrap();
    for (what, at) in [("altered", Some(whole.len() - 1)), ("of another key", Some(165)), ("gone", None)] {
        let mut altered = whole.clone();
        match at {
            Some(at) => altered[at] ^= 1,
            None => std::fs::remove_file(&broken).unwrap(),
        }
        if at.is_some() {
            std::fs::write(&broken, altered).unwrap();
        }
        let read = |point| {
            let (settings, scratch) = (settings.clone(), scratch.path().join(what));
            async move { archived::read(&settings, &keys(), point, None, &scratch, &mut |_| {}).await }
        };
        let refused = read(Until::Latest).await.err().expect("more than is whole").to_string();
        let index = refused.split_once("(--index ").and_then(|(_, rest)| rest.split_once(')'));
        let index: u64 = index.expect(&refused).0.parse().unwrap();
        assert_eq!(refused.contains("another key"), what == "of another key", "{refused}");
        assert!((first..second).contains(&index), "{refused}");
        let found = read(Until::Index(index)).await.unwrap();
        let of = |state: &State, name| state.user_by_name(name).map(|user| user.disabled);
        assert_eq!((found.log_ends_at, found.older.state.index()), (index, index), "{what}");
        assert_eq!(of(&found.older.state, "first"), Some(false));
        assert_eq!(of(&found.newest.state, "first"), Some(true), "the journal tells: {what}");
        assert_eq!(of(&found.newest.state, "third"), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_clusters_in_one_target_one_is_named_behind_it() {
    let place = tempfile::tempdir().unwrap();
    let (settings, ..) = in_three_pieces(place.path()).await;
    let cluster = std::fs::read_dir(place.path()).unwrap().next().unwrap().unwrap();
    std::fs::create_dir_all(place.path().join("0".repeat(32)).join("log")).unwrap();
    let open = |target: String| {
        let settings = conclave_config::ArchiveConfig { target: Some(target), ..settings.clone() };
        async move { read::open(&settings, &keys()).await }
    };
    let target = settings.target.clone().unwrap();
    let refused = open(target.clone()).await.err().unwrap();
    assert!(matches!(refused, ArchiveError::SeveralClusters { .. }), "{refused}");
    let one = open(format!("{target}/{}", cluster.file_name().display())).await.unwrap();
    assert!(one.plan(Until::Latest).await.unwrap().last_index > 0);
}

#[tokio::test]
async fn a_bucket_takes_no_object_twice_and_nobody_elses_key() {
    let root = tempfile::tempdir().unwrap();
    let server = serve(root.path()).await;
    let target = ArchiveTarget::open(&settings(server, SECRET)).unwrap();
    target.put_new("a/b", vec![1; 10]).await.unwrap();
    target.put_new("a/b", vec![1; 10]).await.expect("an unanswered write, sent again");
    let refused = target.put_new("a/b", vec![2; 11]).await.unwrap_err();
    assert!(matches!(refused, ArchiveError::Store { .. }), "{refused}");
    assert_eq!(target.get("a/b", 100).await.unwrap(), [1; 10]);
    assert!(matches!(target.get("a/b", 9).await, Err(ArchiveError::TooLarge { .. })));
    // Parts of eight MiB, and a last part.
    let large: Vec<u8> = (0..20_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let (file, back) = (root.path().join("large"), root.path().join("back"));
    std::fs::write(&file, &large).unwrap();
    let there = target.put_file("a/large", &file).await.unwrap();
    assert_eq!(target.get_file("a/large", &back, &mut |_| ()).await.unwrap(), there);
    assert_eq!(std::fs::read(&back).unwrap(), large);
    // An existing name is left alone, whether the new file has other parts or a file of equal length.
    let small = root.path().join("small");
    for (name, file, bytes) in [("a/large", &file, vec![7; 9_000_000]), ("a/b", &small, vec![9; 10])] {
        std::fs::write(file, bytes).unwrap();
        let refused = target.put_file(name, file).await.unwrap_err();
        assert!(matches!(refused, ArchiveError::Exists { .. }), "{refused}");
    }
    std::fs::remove_file(&back).unwrap();
    assert_eq!(target.get_file("a/large", &back, &mut |_| ()).await.unwrap(), there);
    assert_eq!(target.get("a/b", 100).await.unwrap(), [1; 10]);
    target.delete("a/b").await.unwrap();
    target.delete("a/b").await.expect("gone already");

    let stranger = ArchiveTarget::open(&settings(server, "another")).unwrap();
    let refused = stranger.put_new("a/c", vec![1]).await.unwrap_err().to_string();
    assert!(refused.contains("a/c") && !refused.contains("another"), "{refused}");
    let shown = format!("{:?} {stranger:?}", settings(server, SECRET));
    assert!(!shown.contains(SECRET) && !shown.contains("another"), "{shown}");
}
