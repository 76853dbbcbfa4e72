//! The options that `client create` and `client update` share: grant types, formats and key binding of tokens.

use std::{io::Read as _, path::PathBuf, time::Duration};

use conclave_client::v1;

use conclave_config::parse_duration;

use super::failure::Failure;

#[derive(Debug, clap::Args)]
pub(super) struct TokenArgs {
    /// A grant type that it may use at the token endpoint; may be given several times [default for a new client:
    /// authorization_code refresh_token]
    #[arg(long = "grant-type", value_name = "TYPE")]
    pub grant_types: Vec<String>,
    /// A file with its public keys, a JWK Set, for private_key_jwt, or with its certificates as x5c for
    /// self_signed_tls_client_auth
    #[arg(long, value_name = "FILE")]
    jwks_file: Option<PathBuf>,
    /// The only algorithm of its assertions: RS256, PS256, ES256 or EdDSA
    #[arg(long, value_name = "ALG")]
    pub assertion_algorithm: Option<String>,
    /// Every access token must be bound to a DPoP key
    #[arg(long, value_name = "true|false")]
    pub dpop_bound: Option<bool>,
    /// Return userinfo as a JWT signed with this algorithm
    #[arg(long, value_name = "ALG")]
    pub userinfo_algorithm: Option<String>,
    /// The format of its access tokens: jwt or opaque [default for a new client: jwt]
    #[arg(long, value_name = "FORMAT")]
    pub access_token_format: Option<String>,
    /// The name in its certificate, for tls_client_auth: subject_dn=…, san_dns=…, san_uri=…, san_ip=… or san_email=…
    #[arg(long, value_name = "KIND=NAME")]
    pub tls_client_auth: Option<String>,
    /// A name of the client as a resource server; may be given several times
    #[arg(long = "audience", value_name = "NAME")]
    pub audiences: Vec<String>,
    /// A claim of its own, made by an expression (docs/policy.md), released with a scope or always; all given claims
    /// together replace the earlier ones: roles=user.groups, tenant@profile='acme'
    #[arg(long = "claim", value_name = "NAME[@SCOPE]=EXPRESSION", value_parser = claim)]
    pub claims: Vec<v1::ClaimRule>,
    /// Remove all claims of its own
    #[arg(long, conflicts_with = "claims")]
    pub no_claims: bool,
}

fn claim(text: &str) -> Result<v1::ClaimRule, String> {
    let (name, expression) =
        text.split_once('=').ok_or_else(|| format!("{text:?} has no '=' after the claim's name"))?;
    let (name, scope) = name.split_once('@').unwrap_or((name, ""));
    Ok(v1::ClaimRule { name: name.into(), scope: scope.into(), expression: expression.into() })
}

/// The longest JWK Set that is read: the API refuses longer ones.
const MAX_JWKS_BYTES: u64 = 64 * 1024;

/// Parses the time for which two secrets are valid.
pub(super) fn overlap(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "write for example 90s, 12h or 30d".to_owned())
}

impl TokenArgs {
    /// The keys in the file, if one is given.
    ///
    /// # Errors
    /// An error if it cannot be read.
    pub(super) fn jwks(&self) -> Result<Option<String>, Failure> {
        let Some(path) = &self.jwks_file else { return Ok(None) };
        let cannot = |error: &dyn std::fmt::Display| {
            Failure::other(format!("cannot read the keys in {}: {error}", path.display()))
        };
        let file = std::fs::File::open(path).map_err(|error| cannot(&error))?;
        let mut text = String::new();
        file.take(MAX_JWKS_BYTES).read_to_string(&mut text).map_err(|error| cannot(&error))?;
        Ok(Some(text))
    }
}
