//! A user's browser with the parts that a sign-in needs: cookies, forms, redirects that the caller follows.

use std::collections::BTreeMap;

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, body::Bytes};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

/// Longest page read, in bytes; the product's pages have a few KiB.
const MAX_PAGE_BYTES: usize = 1 << 20;

pub(crate) type HttpClient = Client<HttpConnector, Full<Bytes>>;

/// A client that keeps connections between requests.
pub(crate) fn http() -> HttpClient {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).build(connector)
}

/// Cookies of one host at one node.
pub(crate) struct LoadBrowser {
    http: HttpClient,
    node: String,
    cookies: BTreeMap<String, String>,
}

pub(crate) struct LoadedPage {
    pub status: u16,
    location: Option<String>,
    cookies: Vec<String>,
    pub text: String,
}

impl LoadBrowser {
    pub(crate) fn new(http: HttpClient, node: &str) -> Self {
        Self { http, node: node.to_owned(), cookies: BTreeMap::new() }
    }

    /// GET of a path at the node.
    pub(crate) async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<LoadedPage> {
        self.send("GET", path, headers, String::new()).await
    }

    /// POST of a form.
    pub(crate) async fn post(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        form: &[(&str, &str)],
    ) -> anyhow::Result<LoadedPage> {
        let mut headers = headers.to_vec();
        headers.push(("content-type", "application/x-www-form-urlencoded"));
        self.send("POST", path, &headers, encoded(form)).await
    }

    async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> anyhow::Result<LoadedPage> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.node));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !self.cookies.is_empty() {
            request = request.header("cookie", self.cookie_header());
        }
        let reply = self.http.request(request.body(Full::from(body))?).await?;
        let text_of = |value: &hyper::header::HeaderValue| value.to_str().map(str::to_owned).ok();
        let status = reply.status().as_u16();
        let location = reply.headers().get("location").and_then(text_of);
        let cookies: Vec<String> = reply.headers().get_all("set-cookie").iter().filter_map(text_of).collect();
        let body = Limited::new(reply.into_body(), MAX_PAGE_BYTES).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
        let page =
            LoadedPage { status, location, cookies, text: String::from_utf8_lossy(&body).into_owned() };
        self.keep(&page);
        Ok(page)
    }

    fn keep(&mut self, page: &LoadedPage) {
        for cookie in &page.cookies {
            let pair = cookie.split(';').next().and_then(|pair| pair.split_once('='));
            let Some((name, value)) = pair else { continue };
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
    }

    pub(crate) fn cookie_header(&self) -> String {
        self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }
}

impl LoadedPage {
    pub(crate) fn location(&self) -> anyhow::Result<&str> {
        self.location.as_deref().with_context(|| format!("{} has no Location: {}", self.status, self.text))
    }

    /// The value of a hidden field.
    pub(crate) fn field(&self, name: &str) -> anyhow::Result<&str> {
        let marker = format!("name=\"{name}\" value=\"");
        let rest = self.text.split_once(&marker).map(|(_, rest)| rest);
        let value = rest.and_then(|rest| rest.split('"').next());
        value.with_context(|| format!("{}: the page has no field {name}: {}", self.status, self.text))
    }
}

pub(crate) fn encoded(form: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish()
}

/// Path and query of an absolute or relative URL.
pub(crate) fn path_of(url: &str) -> anyhow::Result<String> {
    let base = url::Url::parse("http://any.test")?;
    let url = base.join(url)?;
    Ok(url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path())))
}
