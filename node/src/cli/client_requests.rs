//! The options that `client create` and `client update` share: requirements on authorization requests, and notices of
//! logouts.

#[derive(Debug, clap::Args)]
pub(super) struct RequestArgs {
    /// The URI that receives a notice when a session ends (back-channel logout); empty = none
    #[arg(long, value_name = "URI")]
    pub backchannel_logout_uri: Option<String>,
    /// A page that the browser loads when the user signs out (front-channel logout); empty = none
    #[arg(long, value_name = "URI")]
    pub frontchannel_logout_uri: Option<String>,
    /// Logout tokens must name the session; Conclave's always do
    #[arg(long, value_name = "true|false")]
    pub backchannel_logout_session_required: Option<bool>,
    /// Accept only requests that were pushed before (RFC 9126)
    #[arg(long, value_name = "true|false")]
    pub require_par: Option<bool>,
    /// Allow a client that can authenticate to omit PKCE: false, true (if it sends a nonce instead) or without-nonce
    /// (always; a stolen code is then not detected) [default for a new client: true if it can authenticate]
    #[arg(long, value_name = "true|false|without-nonce", value_parser = Pkce::parse)]
    pub pkce_optional: Option<Pkce>,
    /// Accept its secret only by its registered method, and not by header or body alike
    #[arg(long, value_name = "true|false")]
    pub strict_auth: Option<bool>,
    /// Allow plain http redirect URIs on private hosts; only for a client that can authenticate
    #[arg(long, value_name = "true|false")]
    pub allow_http: Option<bool>,
    /// Send errors to it without iss (RFC 9207), for an application that misreads it, such as mod_auth_openidc of
    /// Debian 12
    #[arg(long, value_name = "true|false")]
    pub omit_error_iss: Option<bool>,
    /// A scheme without a dot that its redirect URIs may have, such as oc; may be given several times
    #[arg(long = "allow-scheme", value_name = "SCHEME")]
    pub allowed_schemes: Vec<String>,
    /// The audience of its access tokens when a request names no resource; one of its resources; may be given several
    /// times
    #[arg(long = "default-resource", value_name = "URI")]
    pub default_resources: Vec<String>,
    /// A resource that it may request (RFC 8707), exactly; may be given several times
    #[arg(long = "resource", value_name = "URI")]
    pub resources: Vec<String>,
}

/// The cases in which PKCE may be omitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pkce {
    /// Never.
    Required,
    /// If the request has a nonce.
    WithNonce,
    /// Always.
    WithoutNonce,
}

impl Pkce {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "false" => Ok(Self::Required),
            "true" => Ok(Self::WithNonce),
            "without-nonce" => Ok(Self::WithoutNonce),
            _ => Err("write true, false or without-nonce".to_owned()),
        }
    }

    /// True if PKCE may be omitted when there is a nonce.
    pub(super) fn is_optional(self) -> bool {
        self != Self::Required
    }

    /// True if PKCE may be omitted without a nonce.
    pub(super) fn is_without_nonce(self) -> bool {
        self == Self::WithoutNonce
    }
}
