//! The code of each kind of finding, and its remedy. The codes are for programs and never change.

use serde_json::{Value, json};

/// The gravity: users are locked out or at risk, or they are only served worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    Error,
    Warning,
}

/// A fault that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub code: &'static str,
    pub weight: Weight,
    /// The observation.
    pub what: String,
    /// The remedy.
    pub change: &'static str,
}

/// The code, weight and remedy of every finding.
const KNOWN: [(&str, Weight, &str); 22] = [
    (
        "atmosphere_address",
        Weight::Error,
        "account servers accept a public https address without a port only; set http.public_url of the nodes to one",
    ),
    (
        "atmosphere_status",
        Weight::Error,
        "let the proxy pass /oauth-client-metadata.json and /oauth-client-jwks.json to the nodes as they are: no redirect, no sign-in before them",
    ),
    (
        "atmosphere_other_client",
        Weight::Error,
        "set http.public_url of every node to the address at which account servers reach them",
    ),
    (
        "atmosphere_no_keys",
        Weight::Error,
        "wait until the cluster has a leader; it makes its signing keys then",
    ),
    ("unreachable", Weight::Error, "check the address, the name's DNS entry and the proxy's certificate"),
    (
        "not_protected",
        Weight::Error,
        "the proxy does not ask Conclave about this application; compare its configuration with deploy/proxies",
    ),
    (
        "unknown_host",
        Weight::Error,
        "no application has this host: conclave app update SLUG --host HOST; and give the proxy's X-Forwarded-Host, scheme and port as browsers see them",
    ),
    (
        "bad_check",
        Weight::Error,
        "the node refuses the proxy's check request: add the proxy's address to http.trusted_proxies; the node's log shows under the request id what was missing",
    ),
    (
        "check_failed",
        Weight::Error,
        "the proxy cannot use the check's response: use /auth/nginx with nginx, and check the nodes' addresses in the proxy",
    ),
    (
        "loop",
        Weight::Error,
        "the browser is sent back and forth: let the proxy pass Cookie and Set-Cookie, and send /.conclave/ on the application's host to Conclave without a check",
    ),
    (
        "own_path",
        Weight::Error,
        "send /.conclave/ on the application's host to Conclave, before the check and with its Host header",
    ),
    (
        "foreign_login",
        Weight::Error,
        "set http.public_url of the nodes to the address at which users reach them",
    ),
    (
        "not_conclave",
        Weight::Error,
        "the sign-in's address does not lead to Conclave: look at the proxy's site for http.public_url",
    ),
    (
        "issuer",
        Weight::Error,
        "http.public_url must be the address that browsers see, the same on every node",
    ),
    (
        "scheme",
        Weight::Error,
        "let the proxy send X-Forwarded-Proto (nginx: the scheme in X-Original-URL) as browsers see it; https in front and http behind is the usual cause",
    ),
    (
        "other_host",
        Weight::Error,
        "let the proxy send X-Forwarded-Host with the host and port that browsers see",
    ),
    ("cookie_dropped", Weight::Error, "let the proxy pass Set-Cookie of /.conclave/ on"),
    (
        "cookie_secure",
        Weight::Error,
        "the cookie does not fit the scheme: let the proxy send the right one in X-Forwarded-Proto",
    ),
    (
        "cookie_domain",
        Weight::Error,
        "browsers refuse the cookie's domain on this host: correct http.app_domains, http.cookie_domain or a rewriting proxy",
    ),
    ("clock", Weight::Error, "set the clock by NTP, on the server or here"),
    (
        "forged_header",
        Weight::Error,
        "the proxy trusts its clients: set or strip this header before the check, as deploy/proxies does",
    ),
    (
        "check_exposed",
        Weight::Warning,
        "answer 404 to /auth/ and /outpost.goauthentik.io/auth/ from outside, as deploy/proxies does",
    ),
];

/// A program is redirected to a page.
const XHR: (&str, Weight, &str) = (
    "xhr_redirected",
    Weight::Warning,
    "let the check see Accept, Sec-Fetch-Mode and X-Requested-With, so that programs get a 401",
);

impl Finding {
    /// Creates a finding with a known code.
    pub(super) fn new(code: &'static str, what: impl Into<String>) -> Self {
        let known = KNOWN.iter().find(|(known, ..)| *known == code).unwrap_or(&XHR);
        Self { code: known.0, weight: known.1, what: what.into(), change: known.2 }
    }

    /// The finding as JSON for output.
    pub(super) fn value(&self) -> Value {
        let weight = match self.weight {
            Weight::Error => "error",
            Weight::Warning => "warning",
        };
        json!({ "weight": weight, "code": self.code, "what": self.what, "change": self.change })
    }
}
