//! Configuration of a client.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use tonic::{
    metadata::{Ascii, MetadataValue},
    transport::Certificate,
};

use crate::{
    AdminClient,
    call::Inner,
    routing::{Routing, endpoint},
};

/// Default time limit of a call with all its retries: enough for an election and a restart, twice.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);
/// The longest deadline: well below the two minutes for which a cluster remembers request ids, so that a retry is
/// always recognised.
const MAX_DEADLINE: Duration = Duration::from_mins(1);

/// Returns the text of a bearer token, for each attempt anew.
pub(crate) type TokenSource = Arc<dyn Fn() -> String + Send + Sync>;

/// Configuration of a client. See [`AdminClient::builder`].
#[derive(Clone, Default)]
pub struct ClientBuilder {
    endpoints: Vec<String>,
    token: Option<TokenSource>,
    authorities: Option<Certificate>,
    deadline: Option<Duration>,
}

/// The reason for which a client cannot be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BuildError {
    /// No endpoint is configured.
    #[error("no endpoint is given; name at least one, such as http://127.0.0.1:9200")]
    NoEndpoint,
    /// The URL is not one that this client can connect to.
    #[error("{0:?} is not http://host:port or https://host")]
    BadEndpoint(String),
    /// An https endpoint, but no certificate authorities to verify it against.
    #[error(
        "{0:?} is https, and this machine's certificate authorities were not found; name a PEM file of them"
    )]
    NoAuthorities(String),
    /// The authorities are not PEM certificates.
    #[error("the certificate authorities cannot be read; they must be PEM certificates")]
    BadAuthorities,
    /// The token does not fit into a header. It is not repeated here.
    #[error("the token holds characters that a bearer token cannot have")]
    BadToken,
}

impl ClientBuilder {
    /// Sets the admin API URLs of some nodes, `http://host:port` or `https://host`. One is enough; with more, one may
    /// be down from the start.
    #[must_use]
    pub fn endpoints<T: Into<String>>(mut self, urls: impl IntoIterator<Item = T>) -> Self {
        self.endpoints.extend(urls.into_iter().map(Into::into));
        self
    }

    /// Sets the bearer token.
    #[must_use]
    pub fn token(self, token: impl Into<String>) -> Self {
        let token = token.into();
        self.token_source(move || token.clone())
    }

    /// Sets a source of short-lived bearer tokens: it is called at each attempt.
    #[must_use]
    pub fn token_source(mut self, source: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.token = Some(Arc::new(source));
        self
    }

    /// Sets the PEM certificates of the authorities that https endpoints are verified against.
    #[must_use]
    pub fn authorities(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.authorities = Some(Certificate::from_pem(pem));
        self
    }

    /// Sets the time limit of a call with all its retries; at most a minute. The default is ten seconds.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline.min(MAX_DEADLINE));
        self
    }

    /// Builds the client. It connects at the first call.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn build(self) -> Result<AdminClient, BuildError> {
        if self.endpoints.is_empty() {
            return Err(BuildError::NoEndpoint);
        }
        for url in &self.endpoints {
            endpoint(url, self.authorities.as_ref())?;
        }
        if let Some(token) = &self.token {
            bearer(&token()).ok_or(BuildError::BadToken)?;
        }
        let inner = Inner {
            routing: Routing::new(self.endpoints, self.authorities),
            token: self.token,
            deadline: self.deadline.unwrap_or(DEFAULT_DEADLINE),
            seen: Mutex::default(),
        };
        Ok(AdminClient { inner: Arc::new(inner) })
    }
}

impl AdminClient {
    /// A client of this node and no other, with the same token: for information that only this node has.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn at(&self, url: &str) -> Result<Self, BuildError> {
        let authorities = self.inner.routing.authorities();
        endpoint(url, authorities)?;
        let inner = Inner {
            routing: Routing::new(vec![url.to_owned()], authorities.cloned()),
            token: self.inner.token.clone(),
            deadline: self.inner.deadline,
            seen: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

/// The header's value, marked as sensitive: its debug output is redacted.
pub(crate) fn bearer(token: &str) -> Option<MetadataValue<Ascii>> {
    let mut value = MetadataValue::try_from(format!("Bearer {}", token.trim())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}
