//! The checks and their conclusions. Every conclusion is based on a response that any client can get.

use http::header;
use time::{OffsetDateTime, format_description::well_known::Rfc2822};
use url::Url;

use super::{
    findings::Finding,
    walk::{Browser, Hop, NAVIGATION},
};

/// The largest clock difference, compared with tickets that live minutes and assertions that live one.
const MOST_SKEW_SECS: u64 = 30;
/// Headers that clients may set and no proxy may trust: the target of the request, and its sender.
const FORGED: [(&str, &str); 8] = [
    ("x-forwarded-uri", "/.conclave/start"),
    ("x-forwarded-method", "OPTIONS"),
    ("x-forwarded-host", "localhost"),
    ("x-original-url", "http://localhost/"),
    ("forwarded", "for=127.0.0.1;host=localhost"),
    ("remote-user", "admin"),
    ("x-authentik-username", "admin"),
    ("x-auth-request-user", "admin"),
];
/// The paths of the checks, which must not be reachable from outside.
const CHECKS: [&str; 3] = ["/auth/traefik", "/auth/nginx", "/outpost.goauthentik.io/auth/nginx"];

/// Every fault of the application at `url`, the gravest first.
pub(super) async fn application(url: &Url, now_ms: u64) -> Vec<Finding> {
    let mut browser = Browser::new();
    let (hops, broken) = browser.follow(url).await;
    let mut found = Vec::new();
    if let Some((at, error)) = broken {
        found.push(Finding::new("unreachable", format!("{at}: {error}")));
    }
    let Some(first) = hops.first() else { return found };
    found.extend(clock(first, now_ms));
    found.extend(way_in(url, &hops));
    found.extend(forged(first).await);
    if let Some(login) = hops.iter().find(|hop| hop.url.path() == "/login") {
        found.extend(provider(url, login).await);
        found.extend(exposed(&login.url).await);
    }
    found.extend(program(url, first).await);
    found
}

fn clock(hop: &Hop, now_ms: u64) -> Option<Finding> {
    let date = hop.answer.headers.get(header::DATE)?.to_str().ok()?.replace(" GMT", " +0000");
    let theirs = OffsetDateTime::parse(&date, &Rfc2822).ok()?.unix_timestamp();
    let here = i64::try_from(now_ms / 1_000).ok()?;
    let skew = here.abs_diff(theirs);
    (skew > MOST_SKEW_SECS).then(|| {
        Finding::new(
            "clock",
            format!("the clocks of {} and of this machine are {skew} s apart", hop.url.authority()),
        )
    })
}

/// Checks each step from the page to the sign-in.
fn way_in(url: &Url, hops: &[Hop]) -> Vec<Finding> {
    let Some(first) = hops.first() else { return Vec::new() };
    if let Some(stopped) = stopped(first) {
        return vec![stopped];
    }
    let mut found = Vec::new();
    if hops.iter().enumerate().any(|(n, hop)| n > 0 && hop.url == *url && hop.next.is_some())
        || hops.iter().any(|hop| hop.code().as_deref() == Some("sign_in_loop"))
    {
        found
            .push(Finding::new("loop", format!("{url} redirects back to itself after {} steps", hops.len())));
    }
    let Some(start) = &first.next else { return found };
    if start.scheme() != url.scheme() {
        found.push(Finding::new(
            "scheme",
            format!("{url} redirects to {}://, another scheme than users open", start.scheme()),
        ));
    }
    if start.path().ends_with("/start") && start.authority() != url.authority() && start.host() != url.host()
    {
        found.push(Finding::new("other_host", format!("{url} redirects to {}", start.authority())));
    }
    found.extend(hops.get(1).and_then(|hop| at_start(url, hop)));
    found
}

/// The fault of the first response, if it does not lead further.
fn stopped(first: &Hop) -> Option<Finding> {
    let at = &first.url;
    let finding = |code, what: &str| Some(Finding::new(code, format!("{at}: {what}")));
    match (first.status(), first.code().as_deref()) {
        (200..=299, _) => finding("not_protected", "the page opens without a sign-in"),
        (403, Some("unknown_application")) => {
            finding("unknown_host", "Conclave does not know this host, scheme or port as an application's")
        }
        (403, Some("bad_check")) => finding("bad_check", "Conclave refuses to answer this proxy"),
        (500.., _) => finding("check_failed", &format!("the proxy answers {}", first.status())),
        (status, _) if first.next.is_none() => finding(
            "check_failed",
            &format!("the proxy answers {status} where a browser must be sent to sign in"),
        ),
        _ => None,
    }
}

/// Checks `/.conclave/start` on the application's own host: it must be answered by Conclave, and its cookie must
/// arrive.
fn at_start(url: &Url, hop: &Hop) -> Option<Finding> {
    if !hop.url.path().ends_with("/start") {
        return None;
    }
    let leads_to_login = hop.next.as_ref().is_some_and(|next| next.path() == "/login");
    if !leads_to_login {
        return Some(Finding::new(
            "own_path",
            format!("{}: answers {} and does not lead to the sign-in", path_only(&hop.url), hop.status()),
        ));
    }
    let Some(cookie) = hop.cookies().find(|cookie| cookie.contains("conclave_")) else {
        return Some(Finding::new("cookie_dropped", format!("{} sets no cookie", path_only(&hop.url))));
    };
    let lower = cookie.to_ascii_lowercase();
    let is_secure = lower.split(';').any(|part| part.trim() == "secure");
    if is_secure != (url.scheme() == "https") {
        let what = format!(
            "{} sets a cookie that is {}for https",
            path_only(&hop.url),
            if is_secure { "" } else { "not " }
        );
        return Some(Finding::new("cookie_secure", what));
    }
    let domain = lower.split(';').find_map(|part| part.trim().strip_prefix("domain="));
    let host = url.host_str().unwrap_or_default();
    let fits = domain.is_none_or(|domain| {
        let domain = domain.trim_start_matches('.');
        host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    });
    (!fits).then(|| {
        Finding::new(
            "cookie_domain",
            format!("{} sets a cookie for {}", path_only(&hop.url), domain.unwrap_or_default()),
        )
    })
}

/// The URL without its ticket, which belongs to the visitor.
fn path_only(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

/// Checks that the sign-in page is a Conclave whose issuer is the address that the browser sees.
async fn provider(url: &Url, login: &Hop) -> Option<Finding> {
    let origin = login.url.origin().ascii_serialization();
    if url.scheme() == "https" && login.url.scheme() == "http" {
        return Some(Finding::new("foreign_login", format!("the sign-in of an https page is at {origin}")));
    }
    let discovery = login.url.join("/.well-known/openid-configuration").ok()?;
    let issuer = match Browser::new().get(&discovery, &[("accept", "application/json")]).await {
        Ok(hop) if hop.status() == 200 => {
            let document: Option<serde_json::Value> = serde_json::from_slice(&hop.answer.body).ok();
            document.and_then(|document| document.get("issuer")?.as_str().map(str::to_owned))
        }
        _ => None,
    };
    match issuer {
        None => {
            Some(Finding::new("not_conclave", format!("{discovery} is not a provider's discovery document")))
        }
        Some(issuer) if issuer != origin => {
            Some(Finding::new("issuer", format!("{origin} has the issuer {issuer}")))
        }
        Some(_) => None,
    }
}

/// Checks if a visitor gets in with a header that any client can set.
async fn forged(plain: &Hop) -> Vec<Finding> {
    let mut found = Vec::new();
    if plain.answer.status.is_success() {
        return found;
    }
    for (name, value) in FORGED {
        let headers = [&NAVIGATION[..], &[(name, value)]].concat();
        let Ok(hop) = Browser::new().get(&plain.url, &headers).await else { continue };
        if hop.answer.status.is_success() {
            found.push(Finding::new(
                "forged_header",
                format!("{}: opens without a sign-in for any client that sends {name}: {value}", plain.url),
            ));
        } else if hop.code().as_deref() == Some("unknown_application") && plain.code() != hop.code() {
            found.push(Finding::new(
                "forged_header",
                format!("{}: a client's {name} reaches the check and is taken for the proxy's", plain.url),
            ));
        }
    }
    found
}

/// Checks that the check endpoints are not reachable from outside: a client that reaches them can pose as one behind a
/// trusted address.
async fn exposed(login: &Url) -> Option<Finding> {
    for path in CHECKS {
        let Ok(url) = login.join(path) else { continue };
        let Ok(hop) = Browser::new().get(&url, &NAVIGATION).await else { continue };
        if hop.status() != 404 {
            return Some(Finding::new(
                "check_exposed",
                format!("{url} answers {} to the outside", hop.status()),
            ));
        }
    }
    None
}

async fn program(url: &Url, plain: &Hop) -> Option<Finding> {
    plain.next.as_ref()?;
    let headers = [("accept", "application/json"), ("x-requested-with", "XMLHttpRequest")];
    let hop = Browser::new().get(url, &headers).await.ok()?;
    hop.answer.status.is_redirection().then(|| {
        Finding::new(
            "xhr_redirected",
            format!("{url}: a script is redirected to a page instead of getting a 401"),
        )
    })
}
