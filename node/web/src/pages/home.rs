//! `/`: the signed-in user's start page.

use std::sync::Arc;

use axum::{
    extract::State,
    http::HeaderMap,
    response::{Html, IntoResponse, Response},
};

use conclave_state::application::Application;

use crate::views;
use conclave_auth::{
    client_name::shown_name,
    picture,
    policy::{AppRequest, Circumstances},
    session::SignedIn,
    ticket::{LoginStep, LoginTarget},
};
use conclave_http::{ClientInfo, Fault, RequestId};

use super::site::{Browser, Site, fault_of, lines, see_other};

pub(super) async fn show(
    State(site): State<Arc<Site>>,
    id: RequestId,
    client: ClientInfo,
    headers: HeaderMap,
) -> Response {
    match shown(&site, &client, &headers).await {
        Ok(response) => response,
        Err(fault) => site.fault(&fault, &id),
    }
}

async fn shown(site: &Site, client: &ClientInfo, headers: &HeaderMap) -> Result<Response, Fault> {
    let browser = site.browser(headers)?;
    let visitor = site.visitor(&browser).await?;
    let Some(signed_in) = visitor.signed_in else {
        return Ok(site.with_browser(&browser, see_other("/login")));
    };
    let mut applications: Vec<views::PageLink> = signed_in
        .state
        .applications_after(None)
        .filter(|a| !a.launch_url.is_empty() && opens(site, client, &signed_in, a))
        .take(MAX_APPLICATIONS)
        .map(|a| views::PageLink { url: a.launch_url.clone(), label: a.name.clone() })
        .collect();
    applications.sort_by_cached_key(|link| link.label.to_lowercase());
    let user = &signed_in.user;
    let name = Some(user.display_name.clone()).filter(|name| !name.is_empty());
    let view = views::HomeView {
        form: site.form(&browser, "/logout", ""),
        picture: signed_in.state.picture_of(user.id).map(|shown| picture::path(shown.id())),
        initial: views::HomeView::initial_of(name.as_deref().unwrap_or(&user.username)),
        username: user.username.to_string(),
        display_name: name,
        applications,
        connections: connections(&signed_in),
        providers: providers(site, &browser, &signed_in)?,
        unlink: site.form(&browser, super::upstream::UNLINK, ""),
        disconnect: site.form(&browser, super::connections::ACTION, ""),
    };
    Ok(site.with_browser(&browser, Html(site.pages.render(&view)).into_response()))
}

/// True if the user may open the page that the link leads to.
fn opens(site: &Site, client: &ClientInfo, signed_in: &SignedIn, application: &Application) -> bool {
    let url = url::Url::parse(&application.launch_url).ok();
    let host = url.as_ref().and_then(url::Url::host_str).unwrap_or_default();
    let target = url.as_ref().map_or("/", url::Url::path);
    let around = Circumstances {
        request: Some(AppRequest { method: Some("GET"), host, target }),
        ..Circumstances::of_session(&signed_in.session, Some(client.ip))
    };
    site.auth.admits(&signed_in.state, application, &signed_in.user, &around)
}

/// The other providers: those that the user is linked to, and those that the user may link.
fn providers(
    site: &Site,
    browser: &Browser,
    signed_in: &SignedIn,
) -> Result<Vec<views::LinkedProvider>, Fault> {
    let step = LoginStep::Link { session: *signed_in.session.id.bytes() };
    let ticket = site.auth.ticket(step, LoginTarget::Home, Some(browser.id.as_str()));
    let text = site.auth.seal(&ticket).map_err(|error| fault_of(&error))?;
    let shown = signed_in.state.upstreams().filter_map(|upstream| {
        let identity = signed_in.state.identity_of(signed_in.user.id, &upstream.name);
        (identity.is_some() || !upstream.disabled).then(|| views::LinkedProvider {
            name: upstream.name.to_string(),
            label: upstream.display_name.clone(),
            identity: identity.map(|identity| identity.label.clone()),
            url: format!("/upstream/{}/link?ticket={text}", upstream.name),
        })
    });
    Ok(shown.collect())
}

/// The consents that the user gave for good.
fn connections(signed_in: &SignedIn) -> Vec<views::ConnectedClient> {
    let rows = signed_in.state.consents_of(signed_in.user.id).take(MAX_APPLICATIONS);
    let shown = rows.filter_map(|consent| {
        let client = signed_in.state.client(consent.client.as_str())?;
        Some(views::ConnectedClient {
            client_id: client.id.to_string(),
            name: shown_name(client),
            scopes: lines(&consent.scopes),
        })
    });
    shown.collect()
}

/// Maximum number of applications on the page.
const MAX_APPLICATIONS: usize = 200;
