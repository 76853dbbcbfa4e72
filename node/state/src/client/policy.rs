//! Rules for requesting, making and binding a client's tokens. A client from before these options existed has the
//! default of each.

use std::sync::Arc;

use conclave_proto::command::v1 as pb;
pub use pb::{AccessTokenFormat, GrantType};

use super::{CertificateName, ClientAuthMethod, SigningAlgorithm, wire};
use crate::{reply::Refusal, text};

/// The grant types of a client that names none.
const USUAL: [GrantType; 2] = [GrantType::AuthorizationCode, GrantType::RefreshToken];
/// Longest JWK Set: sixteen RSA keys of 4096 bits fit.
const MAX_JWKS_BYTES: usize = 16 * 1024;
/// Most claim rules of a client, and the longest expression of one: the bounds that policies have.
const MAX_CLAIMS: usize = 16;
const MAX_EXPRESSION_BYTES: usize = 2 * 1024;
/// Most grant types of a client: a few more than exist.
const MAX_GRANT_TYPES: usize = 16;

/// Rules for requesting, making and binding a client's tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenPolicy {
    /// Grant types that it may use at the token endpoint; empty = authorization code and refresh.
    pub grant_types: Vec<GrantType>,
    /// Its public keys, a JWK Set as JSON; empty = none.
    pub jwks: Vec<u8>,
    /// The one algorithm of its assertions (RFC 7523).
    pub assertion_algorithm: Option<SigningAlgorithm>,
    /// True if every access token must be bound to a DPoP key (RFC 9449 §5.2).
    pub dpop_bound: bool,
    /// Signing algorithm of userinfo responses; none = plain JSON.
    pub userinfo_algorithm: Option<SigningAlgorithm>,
    /// The host that its pairwise subjects are made for (OIDC Core §8.1); empty = public subjects.
    pub pairwise_sector: String,
    /// True for opaque access tokens, false for JWTs (RFC 9068).
    pub opaque_access_tokens: bool,
    /// Audience names, beside its `client_id`, under which it is a resource server.
    pub audiences: Vec<String>,
    /// For `tls_client_auth`: the name that its certificate must contain (RFC 8705 §2.1.2); none = no certificate is
    /// accepted.
    pub certificate_name: Option<CertificateName>,
    /// Claim rules of its own, beside the claims of the scopes.
    pub claims: Vec<ClaimRule>,
}

/// A claim that an expression computes. The node that makes a token evaluates it; a claim that it cannot compute is
/// left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRule {
    /// Name of the claim.
    pub name: Arc<str>,
    /// The scope that releases it; empty = always released.
    pub scope: String,
    /// The expression as the operator wrote it.
    pub expression: Arc<str>,
}

impl TokenPolicy {
    /// True if the client may use this grant type at the token endpoint.
    pub fn allows(&self, grant_type: GrantType) -> bool {
        if self.grant_types.is_empty() { &USUAL[..] } else { &self.grant_types }.contains(&grant_type)
    }

    /// The grant types that [`allows`](Self::allows) accepts.
    pub fn grant_types(&self) -> &[GrantType] {
        if self.grant_types.is_empty() { &USUAL } else { &self.grant_types }
    }

    pub(super) fn from_wire(wire: Option<&pb::ClientTokens>) -> Result<Self, Refusal> {
        let Some(wire) = wire else { return Ok(Self::default()) };
        Ok(Self {
            grant_types: parse_grant_types(&wire.grant_types)?,
            jwks: parse_jwks(&wire.jwks)?,
            assertion_algorithm: parse_algorithm(wire.assertion_algorithm)?,
            dpop_bound: wire.dpop_bound,
            userinfo_algorithm: parse_algorithm(wire.userinfo_algorithm)?,
            pairwise_sector: text::line("pairwise_sector", &wire.pairwise_sector, text::MAX_TEXT_BYTES)?,
            opaque_access_tokens: parse_is_opaque(wire.access_token_format)?,
            audiences: wire::parse_uris("audiences", &wire.audiences)?,
            certificate_name: CertificateName::parse(&wire.certificate_name)?,
            claims: parse_claims(&wire.claims)?,
        })
    }

    /// Encodes the rules. None for the default, so that the encoding of an earlier row never changes.
    pub(super) fn to_wire(&self) -> Option<pb::ClientTokens> {
        let algorithm = |algorithm: Option<SigningAlgorithm>| algorithm.unwrap_or_default().into();
        let format = if self.opaque_access_tokens {
            AccessTokenFormat::Opaque
        } else {
            AccessTokenFormat::Unspecified
        };
        (*self != Self::default()).then(|| pb::ClientTokens {
            grant_types: self.grant_types.iter().map(|grant_type| i32::from(*grant_type)).collect(),
            jwks: self.jwks.clone(),
            assertion_algorithm: algorithm(self.assertion_algorithm),
            dpop_bound: self.dpop_bound,
            userinfo_algorithm: algorithm(self.userinfo_algorithm),
            pairwise_sector: self.pairwise_sector.clone(),
            access_token_format: format.into(),
            audiences: self.audiences.clone(),
            certificate_name: self.certificate_name.as_ref().map(ToString::to_string).unwrap_or_default(),
            claims: self.claims.iter().map(ClaimRule::to_wire).collect(),
        })
    }

    pub(super) fn change(&mut self, change: &pb::ClientTokensChange) -> Result<(), Refusal> {
        if let Some(list) = &change.grant_types {
            self.grant_types = parse_grant_types(&list.grant_types)?;
        }
        if let Some(jwks) = &change.jwks {
            self.jwks = parse_jwks(jwks)?;
        }
        if let Some(algorithm) = change.assertion_algorithm {
            self.assertion_algorithm = parse_algorithm(algorithm)?;
        }
        if let Some(bound) = change.dpop_bound {
            self.dpop_bound = bound;
        }
        if let Some(algorithm) = change.userinfo_algorithm {
            self.userinfo_algorithm = parse_algorithm(algorithm)?;
        }
        if let Some(format) = change.access_token_format {
            self.opaque_access_tokens = parse_is_opaque(format)?;
        }
        if let Some(list) = &change.audiences {
            self.audiences = wire::parse_uris("audiences", &list.audiences)?;
        }
        if let Some(name) = &change.certificate_name {
            self.certificate_name = CertificateName::parse(name)?;
        }
        if let Some(list) = &change.claims {
            self.claims = parse_claims(&list.claims)?;
        }
        Ok(())
    }

    /// Changes the subjects of all users: to public ones, or to those of another host. Accepted only from the level on
    /// at which every member reads the field.
    pub(super) fn change_subjects(&mut self, change: &pb::ClientTokensChange) -> Result<(), Refusal> {
        if let Some(sector) = &change.pairwise_sector {
            self.pairwise_sector = text::line("pairwise_sector", sector, text::MAX_TEXT_BYTES)?;
        }
        Ok(())
    }

    /// Refuses options that this authentication method does not allow.
    pub(super) fn fits(&self, method: ClientAuthMethod) -> Result<(), Refusal> {
        let alone = [GrantType::ClientCredentials, GrantType::TokenExchange];
        if method == ClientAuthMethod::None && alone.into_iter().any(|grant_type| self.allows(grant_type)) {
            return Err(Refusal::malformed(
                "a public client cannot have client_credentials or token exchange: anybody could use them",
            ));
        }
        if (method == ClientAuthMethod::TlsClientAuth) != self.certificate_name.is_some() {
            return Err(Refusal::malformed(
                "tls_client_auth needs the name of the certificate, and nothing else has one",
            ));
        }
        if method == ClientAuthMethod::SelfSignedTlsClientAuth && self.jwks.is_empty() {
            return Err(Refusal::malformed(
                "self_signed_tls_client_auth needs jwks with the certificate as x5c",
            ));
        }
        let has_keys = !self.jwks.is_empty() && self.assertion_algorithm.is_some();
        if method == ClientAuthMethod::PrivateKeyJwt && !has_keys {
            return Err(Refusal::malformed("private_key_jwt needs jwks and token_endpoint_auth_signing_alg"));
        }
        Ok(())
    }
}

impl ClaimRule {
    fn to_wire(&self) -> pb::ClaimRule {
        pb::ClaimRule {
            name: self.name.to_string(),
            scope: self.scope.clone(),
            expression: self.expression.to_string(),
        }
    }
}

fn parse_claims(rules: &[pb::ClaimRule]) -> Result<Vec<ClaimRule>, Refusal> {
    if rules.len() > MAX_CLAIMS {
        return Err(Refusal::malformed(format!("at most {MAX_CLAIMS} claims")));
    }
    let mut parsed: Vec<ClaimRule> = Vec::new();
    for rule in rules {
        let name = text::required("a claim's name", &rule.name, text::MAX_TEXT_BYTES)?;
        if parsed.iter().any(|other| *other.name == *name) {
            return Err(Refusal::malformed(format!("the claim {name} is there twice")));
        }
        let scope = wire::parse_scopes(std::slice::from_ref(&rule.scope));
        parsed.push(ClaimRule {
            name: name.into(),
            scope: if rule.scope.is_empty() { String::new() } else { scope?.concat() },
            expression: text::required("expression", &rule.expression, MAX_EXPRESSION_BYTES)?.into(),
        });
    }
    Ok(parsed)
}

fn parse_grant_types(values: &[i32]) -> Result<Vec<GrantType>, Refusal> {
    if values.len() > MAX_GRANT_TYPES {
        return Err(Refusal::malformed(format!("at most {MAX_GRANT_TYPES} grant types")));
    }
    values
        .iter()
        .map(|value| match GrantType::try_from(*value) {
            Ok(GrantType::Unspecified) | Err(_) => Err(Refusal::malformed("a grant type is unknown")),
            Ok(grant_type) => Ok(grant_type),
        })
        .collect()
}

fn parse_jwks(jwks: &[u8]) -> Result<Vec<u8>, Refusal> {
    if jwks.len() > MAX_JWKS_BYTES {
        return Err(Refusal::malformed(format!("jwks has more than {MAX_JWKS_BYTES} bytes")));
    }
    Ok(jwks.to_vec())
}

fn parse_algorithm(value: i32) -> Result<Option<SigningAlgorithm>, Refusal> {
    match SigningAlgorithm::try_from(value) {
        Ok(SigningAlgorithm::Unspecified) => Ok(None),
        Ok(algorithm) => Ok(Some(algorithm)),
        Err(_) => Err(Refusal::malformed("a signing algorithm is unknown")),
    }
}

fn parse_is_opaque(value: i32) -> Result<bool, Refusal> {
    match AccessTokenFormat::try_from(value) {
        Ok(format) => Ok(format == AccessTokenFormat::Opaque),
        Err(_) => Err(Refusal::malformed("access_token_format is unknown")),
    }
}
