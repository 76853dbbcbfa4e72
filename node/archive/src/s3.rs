//! The requests of the S3 client, over our own hyper and rustls: one connection for each request, no redirects,
//! bounded. The store signs them and retries.
//!
//! The operator chooses the address, not an untrusted client. So the policy of `http::outbound` against private
//! addresses does not apply here; otherwise no MinIO in the next rack could be an archive.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use http_body_util::BodyExt as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
        HttpService,
    },
};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use conclave_http::outbound;

/// The time limit of name resolution, connection and TLS.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// The time limit from the request's first byte to the head of the response: a part of a large object is uploaded
/// meanwhile.
const ANSWER_LIMIT: Duration = Duration::from_mins(1);

/// The client that makes the requests.
#[derive(Clone)]
pub(crate) struct S3Requests {
    tls: Option<Arc<ClientConfig>>,
}

impl S3Requests {
    pub(crate) fn new() -> Self {
        Self { tls: outbound::trusted() }
    }
}

impl fmt::Debug for S3Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("S3Requests")
    }
}

impl HttpConnector for S3Requests {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for S3Requests {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let stream = timeout(CONNECT_LIMIT, self.stream(request.uri()))
            .await
            .unwrap_or_else(|_| Err(failed(HttpErrorKind::Connect, "no connection in time")))?;
        timeout(ANSWER_LIMIT, exchange(stream, request))
            .await
            .unwrap_or_else(|_| Err(failed(HttpErrorKind::Timeout, "no answer in time")))
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl S3Requests {
    async fn stream(&self, uri: &http::Uri) -> Result<Box<dyn Stream>, HttpError> {
        let connect = |error: std::io::Error| HttpError::new(HttpErrorKind::Connect, error);
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let is_secure = uri.scheme_str() != Some("http");
        let port = uri.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
        let stream = TcpStream::connect((host, port)).await.map_err(connect)?;
        if !is_secure {
            return Ok(Box::new(stream));
        }
        let tls = self.tls.clone().ok_or_else(|| {
            failed(
                HttpErrorKind::Unknown,
                "this machine has no trusted certificate authorities; install ca-certificates",
            )
        })?;
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        Ok(Box::new(TlsConnector::from(tls).connect(name, stream).await.map_err(connect)?))
    }
}

async fn exchange(stream: Box<dyn Stream>, request: HttpRequest) -> Result<HttpResponse, HttpError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| HttpError::new(HttpErrorKind::Connect, e))?;
    // It ends with the response body, or when that is dropped: the sender is dropped at the end of this function.
    tokio::spawn(connection);
    let answer = sender.send_request(origin_form(request)?).await.map_err(refine)?;
    Ok(answer.map(|body| HttpResponseBody::new(body.map_err(refine))))
}

/// A request names its path in the first line and its host in a header (RFC 9112 §3.2.1).
fn origin_form(mut request: HttpRequest) -> Result<HttpRequest, HttpError> {
    let unfit = |_| failed(HttpErrorKind::Unknown, "the address is not valid");
    let uri = request.uri().clone();
    if !request.headers().contains_key(http::header::HOST) {
        let host = uri.authority().map_or("", http::uri::Authority::as_str);
        let host =
            http::HeaderValue::from_str(host).map_err(|_| failed(HttpErrorKind::Unknown, "no host"))?;
        request.headers_mut().insert(http::header::HOST, host);
    }
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    *request.uri_mut() = path.parse().map_err(unfit)?;
    Ok(request)
}

fn refine(error: hyper::Error) -> HttpError {
    let kind = if error.is_timeout() {
        HttpErrorKind::Timeout
    } else if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        HttpErrorKind::Interrupted
    } else {
        HttpErrorKind::Request
    };
    HttpError::new(kind, error)
}

fn failed(kind: HttpErrorKind, reason: &'static str) -> HttpError {
    HttpError::new(kind, std::io::Error::other(reason))
}
