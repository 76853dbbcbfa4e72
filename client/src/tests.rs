//! The client against scripted nodes.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use prost::Message as _;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, metadata::MetadataValue, transport::Server};

use crate::{
    AdminClient, BuildError, Error, services,
    v1::{
        self,
        user_service_server::{UserService, UserServiceServer},
    },
};

/// The response of a fake node to one call.
enum Answer {
    Ok { index: u64, leader: Option<String> },
    Fail(Status),
}

/// A request that a fake node received.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    request_id: Option<String>,
    index: Option<String>,
    authorization: Option<String>,
}

/// A node that answers from a script; after its end, it repeats the last response.
#[derive(Clone, Default)]
struct Fake {
    script: Arc<Mutex<VecDeque<Answer>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Fake {
    fn answer<M, T: Default>(&self, request: &Request<M>) -> Result<Response<T>, Status> {
        let get = |key| request.metadata().get(key).map(|value| value.to_str().unwrap().to_owned());
        self.asked.lock().unwrap().push(Asked {
            request_id: get("x-conclave-request-id"),
            index: get("x-conclave-index"),
            authorization: get("authorization"),
        });
        match self.script.lock().unwrap().pop_front() {
            None => Ok(Response::new(T::default())),
            Some(Answer::Fail(status)) => Err(status),
            Some(Answer::Ok { index, leader }) => {
                let mut response = Response::new(T::default());
                response.metadata_mut().insert("x-conclave-index", text(index));
                if let Some(leader) = leader {
                    response
                        .metadata_mut()
                        .insert("x-conclave-leader", MetadataValue::try_from(leader).unwrap());
                }
                Ok(response)
            }
        }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    fn request_ids(&self) -> Vec<Option<String>> {
        self.asked().into_iter().map(|asked| asked.request_id).collect()
    }
}

#[tonic::async_trait]
impl UserService for Fake {
    async fn create_user(
        &self,
        request: Request<v1::CreateUserRequest>,
    ) -> Result<Response<v1::User>, Status> {
        self.answer(&request)
    }
    async fn get_user(&self, request: Request<v1::GetUserRequest>) -> Result<Response<v1::User>, Status> {
        self.answer(&request)
    }
    async fn list_users(
        &self,
        request: Request<v1::ListUsersRequest>,
    ) -> Result<Response<v1::ListUsersResponse>, Status> {
        self.answer(&request)
    }
    async fn update_user(
        &self,
        request: Request<v1::UpdateUserRequest>,
    ) -> Result<Response<v1::User>, Status> {
        self.answer(&request)
    }
    async fn set_password(
        &self,
        request: Request<v1::SetPasswordRequest>,
    ) -> Result<Response<v1::SetPasswordResponse>, Status> {
        self.answer(&request)
    }
    async fn delete_user(
        &self,
        request: Request<v1::DeleteUserRequest>,
    ) -> Result<Response<v1::DeleteUserResponse>, Status> {
        self.answer(&request)
    }

    async fn rename_user(
        &self,
        request: Request<v1::RenameUserRequest>,
    ) -> Result<Response<v1::User>, Status> {
        self.answer(&request)
    }

    async fn unlock_user(
        &self,
        request: Request<v1::UnlockUserRequest>,
    ) -> Result<Response<v1::UnlockUserResponse>, Status> {
        self.answer(&request)
    }
}

/// Starts a fake node with this script; returns it and its URL. It ends with the test's runtime.
async fn node(script: impl IntoIterator<Item = Answer>) -> (Fake, String) {
    let fake = Fake { script: Arc::new(Mutex::new(script.into_iter().collect())), ..Fake::default() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = Server::builder().add_service(UserServiceServer::new(fake.clone()));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (fake, url)
}

/// An address without a listener.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// A node that closes each connection after it has received something.
async fn hangs_up() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // The preface and settings of HTTP/2 have arrived, and with them, or soon after, the request.
            let _ = stream.readable().await;
            tokio::task::yield_now().await;
            drop(stream);
        }
    });
    url
}

fn client(endpoints: &[&String]) -> AdminClient {
    let endpoints = endpoints.iter().map(|url| url.as_str());
    AdminClient::builder()
        .endpoints(endpoints)
        .token("secret")
        .deadline(Duration::from_secs(5))
        .build()
        .unwrap()
}

fn impatient(endpoints: &[&String]) -> AdminClient {
    let endpoints = endpoints.iter().map(|url| url.as_str());
    AdminClient::builder().endpoints(endpoints).deadline(Duration::from_millis(150)).build().unwrap()
}

async fn write(client: &AdminClient) -> Result<v1::User, Error> {
    client.users().create(v1::CreateUserRequest::default()).await
}

async fn read(client: &AdminClient) -> Result<v1::User, Error> {
    client.users().get(v1::GetUserRequest::default()).await
}

fn text(index: u64) -> MetadataValue<tonic::metadata::Ascii> {
    MetadataValue::try_from(format!("{index}.tag")).unwrap()
}

fn ok(index: u64) -> Answer {
    Answer::Ok { index, leader: None }
}

#[tokio::test]
async fn writes_follow_the_leader_hint_and_reads_stay() {
    let (leader, leader_url) = node([]).await;
    let (follower, follower_url) = node([Answer::Ok { index: 1, leader: Some(leader_url) }]).await;
    let client = client(&[&follower_url]);
    for _ in 0..3 {
        write(&client).await.unwrap();
    }
    read(&client).await.unwrap();
    assert_eq!(
        (follower.asked().len(), leader.asked().len()),
        (2, 2),
        "first write and read; the other writes"
    );
}

#[tokio::test]
async fn a_leader_that_is_gone_is_left_and_its_hint_not_believed_at_once() {
    let gone = nobody().await;
    let hint = || Answer::Ok { index: 1, leader: Some(gone.clone()) };
    let (follower, url) = node([hint(), hint(), hint()]).await;
    let client = client(&[&url]);
    for _ in 0..3 {
        write(&client).await.unwrap();
    }
    assert_eq!(follower.asked().len(), 3);
}

#[tokio::test]
async fn every_attempt_of_a_write_has_one_name_and_every_write_its_own() {
    let failures =
        [Status::unavailable("no leader"), Status::deadline_exceeded("unknown"), Status::cancelled("late")];
    let (fake, url) = node(failures.map(Answer::Fail)).await;
    let client = client(&[&url]);
    write(&client).await.unwrap();
    write(&client).await.unwrap();
    read(&client).await.unwrap();
    let ids = fake.request_ids();
    let [a, b, c, d, next, of_read] = ids.as_slice() else { panic!("{ids:?}") };
    assert!(a == b && b == c && c == d, "{ids:?}");
    assert!(a.as_ref().is_some_and(|id| id.len() == 32) && next != a);
    assert_eq!(*of_read, None);
    assert_eq!(fake.asked()[0].authorization.as_deref(), Some("Bearer secret"));
}

#[tokio::test]
async fn another_endpoint_is_tried_under_the_same_name() {
    let (silent, silent_url) = node([Answer::Fail(Status::unavailable("starting"))]).await;
    let (fake, url) = node([]).await;
    let client = client(&[&nobody().await, &hangs_up().await, &silent_url, &url]);
    write(&client).await.unwrap();
    assert_eq!(silent.request_ids(), fake.request_ids());
    write(&client).await.unwrap();
    assert_eq!(
        (silent.asked().len(), fake.asked().len()),
        (1, 2),
        "the node that answered is called first the next time"
    );
}

#[tokio::test]
async fn the_highest_index_seen_goes_along() {
    let (fake, url) =
        node([ok(7), ok(5), Answer::Fail(Status::out_of_range("another lineage")), ok(3)]).await;
    let client = client(&[&url]);
    write(&client).await.unwrap();
    read(&client).await.unwrap();
    read(&client.clone()).await.unwrap_err();
    read(&client).await.unwrap();
    let indexes: Vec<_> = fake.asked().into_iter().map(|asked| asked.index).collect();
    assert_eq!(indexes, [None, Some("7.tag".into()), Some("7.tag".into()), None]);
}

#[tokio::test]
async fn an_answer_is_an_answer_however_unwelcome() {
    let answers = [
        (Status::already_exists("taken"), Error::Refused("taken".into())),
        (Status::not_found("gone"), Error::NotFound("gone".into())),
        (Status::invalid_argument("bad"), Error::InvalidArgument("bad".into())),
        (Status::unauthenticated("who"), Error::Unauthenticated("who".into())),
        (Status::permission_denied("no"), Error::PermissionDenied("no".into())),
    ];
    for (status, expected) in answers {
        let (fake, url) = node([Answer::Fail(status)]).await;
        assert_eq!(write(&client(&[&url])).await, Err(expected));
        assert_eq!(fake.asked().len(), 1);
    }
}

#[tokio::test]
async fn when_the_time_is_over_a_write_that_was_sent_is_unknown_and_one_that_was_not_is_not() {
    let always = |status: fn() -> Status| (0..100).map(move |_| Answer::Fail(status()));
    let (fake, url) = node(always(|| Status::deadline_exceeded("who knows"))).await;
    let error = write(&impatient(&[&url])).await.unwrap_err();
    assert!(
        matches!(&error, Error::OutcomeUnknown { request_id, .. } if request_id.len() == 32),
        "{error:?}"
    );
    assert!(error.to_string().contains("unknown"), "{error}");
    assert!(fake.asked().len() > 1);

    let (_, url) = node(always(|| Status::unavailable("no leader"))).await;
    for impossible in [&url, &nobody().await] {
        let error = write(&impatient(&[impossible])).await.unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    }
    let (_, url) = node(
        [Answer::Fail(Status::deadline_exceeded("who knows"))]
            .into_iter()
            .chain(always(|| Status::unavailable("x"))),
    )
    .await;
    let error = write(&impatient(&[&url])).await.unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "one lost attempt is enough: {error:?}");
    let error = write(&impatient(&[&hangs_up().await])).await.unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error:?}");
    let error = read(&impatient(&[&hangs_up().await])).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "a read has no outcome: {error:?}");
}

#[test]
fn what_cannot_work_is_refused_at_once_and_the_token_is_not_printed() {
    let build =
        |url: &str, token: &str| AdminClient::builder().endpoints([url]).token(token).build().map(|_| ());
    assert_eq!(AdminClient::builder().build().map(|_| ()), Err(BuildError::NoEndpoint));
    for bad in ["", "127.0.0.1:9200", "https://", "http://", "ftp://a.example"] {
        assert_eq!(build(bad, "t"), Err(BuildError::BadEndpoint(bad.into())));
    }
    assert_eq!(build("https://a.example", "t"), Err(BuildError::NoAuthorities("https://a.example".into())));
    let wrong = AdminClient::builder().endpoints(["https://a.example"]).authorities("no certificate");
    assert_eq!(wrong.build().map(|_| ()), Err(BuildError::BadAuthorities));
    assert_eq!(build("http://127.0.0.1:1", "a\nb"), Err(BuildError::BadToken));
    let builder = AdminClient::builder().endpoints(["http://127.0.0.1:1"]).token("hush");
    assert!(!format!("{builder:?}").contains("hush"));
}

#[test]
fn every_rpc_of_the_api_has_a_method() {
    let set = prost_types::FileDescriptorSet::decode(conclave_proto::admin::FILE_DESCRIPTOR_SET).unwrap();
    let services = set.file.iter().flat_map(|file| &file.service);
    let described: Vec<String> =
        services.flat_map(|s| s.method.iter().map(move |m| format!("{}/{}", s.name(), m.name()))).collect();
    let (streams, calls): (Vec<_>, Vec<_>) =
        described.into_iter().partition(|rpc| rpc.starts_with("SnapshotService/"));
    assert_eq!(calls, services::RPCS);
    assert_eq!(streams, crate::snapshots::RPCS);
}
