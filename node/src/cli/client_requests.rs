//! What a client's authorization requests must and may be, and how it hears of logouts: the options that `client create` and
//! `client update` share.

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
    /// Whether a client with a secret may leave out PKCE when it sends a nonce
    #[arg(long, value_name = "true|false")]
    pub pkce_optional: Option<bool>,
    /// What it may name as resource (RFC 8707), exactly; may be given several times
    #[arg(long = "resource", value_name = "URI")]
    pub resources: Vec<String>,
}
