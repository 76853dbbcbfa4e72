//! The stylesheet and the logo, served under URLs that contain a digest of their content, so that browsers may cache
//! them for ever and still never show old ones.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::RawQuery;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde::Serialize;

use super::files::{self, CSS, LOGO};
use conclave_crypto::{hex, mac};

/// Caching of an asset under the URL with its own digest, where it never changes.
const FOR_EVER: &str = "public, max-age=31536000, immutable";

/// Caching under any other URL (from a page of another version of the node, or an operator's template), where it may
/// change.
const FOR_A_MINUTE: &str = "public, max-age=60";

/// The assets that the pages load.
#[derive(Clone, Debug)]
pub struct Assets {
    css: Arc<Asset>,
    logo: Arc<Asset>,
    urls: AssetUrls,
}

/// The URLs for templates: `{{ assets.css }}`, `{{ assets.logo }}`.
#[derive(Clone, Debug, Serialize)]
pub struct AssetUrls {
    pub css: String,
    pub logo: String,
}

#[derive(Debug)]
struct Asset {
    path: &'static str,
    content_type: &'static str,
    query: String,
    text: String,
}

impl Assets {
    pub(super) fn new(folder: Option<&Path>) -> Self {
        let css =
            Arc::new(Asset::new("/.conclave/assets/conclave.css", "text/css; charset=utf-8", CSS, folder));
        let logo = Arc::new(Asset::new("/.conclave/assets/logo.svg", "image/svg+xml", LOGO, folder));
        let urls = AssetUrls { css: css.url(), logo: logo.url() };
        Self { css, logo, urls }
    }

    pub fn urls(&self) -> &AssetUrls {
        &self.urls
    }

    /// The routes that serve the assets.
    pub fn routes(&self) -> Router {
        let mut router = Router::new();
        for asset in [&self.css, &self.logo] {
            let served = Arc::clone(asset);
            router = router.route(asset.path, get(async move |query: RawQuery| served.serve(&query)));
        }
        router
    }
}

impl Asset {
    fn new(
        path: &'static str,
        content_type: &'static str,
        (name, built_in): (&str, &str),
        folder: Option<&Path>,
    ) -> Self {
        let text = files::replacement(folder, name).unwrap_or_else(|| built_in.to_owned());
        let digest: String = hex::encode(&mac::sha256(text.as_bytes())).chars().take(16).collect();
        Self { path, content_type, query: format!("v={digest}"), text }
    }

    fn url(&self) -> String {
        format!("{}?{}", self.path, self.query)
    }

    fn serve(&self, RawQuery(query): &RawQuery) -> Response {
        let cache = if query.as_ref() == Some(&self.query) { FOR_EVER } else { FOR_A_MINUTE };
        ([(CONTENT_TYPE, self.content_type), (CACHE_CONTROL, cache)], self.text.clone()).into_response()
    }
}
