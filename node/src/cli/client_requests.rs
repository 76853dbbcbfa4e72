//! What a client's authorization requests must and may be, and how it hears of logouts: the options that `client
//! create` and `client update` share.

#[derive(Debug, clap::Args)]
pub struct RequestArgs {
    /// Where the end of a session is announced (back-channel logout); empty = nowhere
    #[arg(long, value_name = "URI")]
    pub backchannel_logout_uri: Option<String>,
    /// A page that the browser loads when it signs out (front-channel logout); empty = none
    #[arg(long, value_name = "URI")]
    pub frontchannel_logout_uri: Option<String>,
    /// Whether its logout tokens must name the session; they always do
    #[arg(long, value_name = "true|false")]
    pub backchannel_logout_session_required: Option<bool>,
    /// Whether only requests pushed before are taken (RFC 9126)
    #[arg(long, value_name = "true|false")]
    pub require_par: Option<bool>,
    /// Whether a client that can prove itself may leave out PKCE: false, true (when it sends a nonce instead) or
    /// without-nonce (always; a stolen code is then not noticed) [default for a new client: true if it can prove
    /// itself]
    #[arg(long, value_name = "true|false|without-nonce", value_parser = Pkce::parse)]
    pub pkce_optional: Option<Pkce>,
    /// Whether its secret is taken by its registered method alone, and not by header or body alike
    #[arg(long, value_name = "true|false")]
    pub strict_auth: Option<bool>,
    /// Whether its redirect URIs may be plain http on private hosts; only for a client that can prove itself
    #[arg(long, value_name = "true|false")]
    pub allow_http: Option<bool>,
    /// Whether errors go to it without iss (RFC 9207), for an application that misreads it, such as mod_auth_openidc of
    /// Debian 12
    #[arg(long, value_name = "true|false")]
    pub omit_error_iss: Option<bool>,
    /// A scheme without a dot that its redirect URIs may have, such as oc; may be given several times
    #[arg(long = "allow-scheme", value_name = "SCHEME")]
    pub allowed_schemes: Vec<String>,
    /// What its access tokens are for when it names no resource, one of its resources; may be given several times
    #[arg(long = "default-resource", value_name = "URI")]
    pub default_resources: Vec<String>,
    /// What it may name as resource (RFC 8707), exactly; may be given several times
    #[arg(long = "resource", value_name = "URI")]
    pub resources: Vec<String>,
}

/// When PKCE may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pkce {
    /// Never.
    Required,
    /// Beside a nonce.
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

    /// Whether it may be left out beside a nonce.
    pub fn is_optional(self) -> bool {
        self != Self::Required
    }

    /// Whether it may be left out without a nonce.
    pub fn is_without_nonce(self) -> bool {
        self == Self::WithoutNonce
    }
}
