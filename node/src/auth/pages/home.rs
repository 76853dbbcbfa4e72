//! `/`: who is signed in here, and the way out.

use std::sync::Arc;

use axum::{
    extract::State,
    http::HeaderMap,
    response::{Html, IntoResponse, Response},
};

use crate::{
    http::{Fault, RequestId},
    web::views,
};

use super::site::{Site, see_other};

pub async fn show(State(site): State<Arc<Site>>, id: RequestId, headers: HeaderMap) -> Response {
    match shown(&site, &headers).await {
        Ok(response) => response,
        Err(fault) => site.fault(&fault, &id),
    }
}

async fn shown(site: &Site, headers: &HeaderMap) -> Result<Response, Fault> {
    let browser = site.browser(headers)?;
    let visitor = site.visitor(&browser).await?;
    let Some(signed_in) = visitor.signed_in else {
        return Ok(site.with_browser(&browser, see_other("/login")));
    };
    let applications = signed_in
        .state
        .applications_after(None)
        .filter(|a| a.access.admits(&signed_in.user) && !a.launch_url.is_empty())
        .take(MAX_APPLICATIONS)
        .map(|a| views::Link { url: a.launch_url.clone(), label: a.name.clone() })
        .collect();
    let user = &signed_in.user;
    let name = Some(user.display_name.clone()).filter(|name| !name.is_empty());
    let view = views::HomeView {
        form: site.form(&browser, "/logout", ""),
        initial: views::HomeView::initial_of(name.as_deref().unwrap_or(&user.username)),
        username: user.username.to_string(),
        display_name: name,
        applications,
    };
    Ok(site.with_browser(&browser, Html(site.pages.render(&view)).into_response()))
}

/// Most applications on the page.
const MAX_APPLICATIONS: usize = 200;
