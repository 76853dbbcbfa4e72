//! The properties of a client's tokens: grant types, formats and key binding, in the terms of RFC 7591.

use conclave_policy::Expression;
use conclave_proto::{
    admin::v1 as pb,
    command::v1::{Audiences, ClaimRule, ClaimRules, ClientTokens, ClientTokensChange, GrantTypes},
};
use conclave_state::client::{AccessTokenFormat, Client, GrantType, SigningAlgorithm};
use tonic::Status;
use url::Url;

use conclave_auth::claims::is_reserved;
use conclave_crypto::{jwk::Alg, jwks};

use super::{
    clients::{ALGORITHMS, enum_name, parse_enum},
    errors,
};

const GRANT_TYPES: [(&str, GrantType); 5] = [
    ("authorization_code", GrantType::AuthorizationCode),
    ("refresh_token", GrantType::RefreshToken),
    ("client_credentials", GrantType::ClientCredentials),
    ("urn:ietf:params:oauth:grant-type:token-exchange", GrantType::TokenExchange),
    ("urn:ietf:params:oauth:grant-type:device_code", GrantType::DeviceCode),
];
/// The algorithms of assertions, in order of preference for a key that fits several.
const KEY_ALGORITHMS: [(Alg, SigningAlgorithm); 4] = [
    (Alg::Rs256, SigningAlgorithm::Rs256),
    (Alg::Ps256, SigningAlgorithm::Ps256),
    (Alg::Es256, SigningAlgorithm::Es256),
    (Alg::EdDsa, SigningAlgorithm::Eddsa),
];
const FORMATS: [(&str, AccessTokenFormat); 2] =
    [("jwt", AccessTokenFormat::Jwt), ("opaque", AccessTokenFormat::Opaque)];
/// The subject types; `true` for pairwise.
const SUBJECT_TYPES: [(&str, bool); 2] = [("public", false), ("pairwise", true)];

pub(super) fn of_new(message: &pb::CreateClientRequest) -> Result<ClientTokens, Status> {
    Ok(ClientTokens {
        grant_types: grant_types(&message.grant_types)?,
        jwks: keys(&message.jwks)?,
        assertion_algorithm: assertion_algorithm(message)?,
        dpop_bound: message.dpop_bound_access_tokens,
        userinfo_algorithm: algorithm("userinfo_signed_response_alg", &message.userinfo_signed_response_alg)?,
        pairwise_sector: sector(&message.subject_type, &message.sector, &message.redirect_uris)?,
        access_token_format: parse_enum("access_token_format", &message.access_token_format, &FORMATS)?
            .into(),
        audiences: message.audiences.clone(),
        certificate_name: message.tls_client_auth.clone(),
        claims: claims(&message.claims)?,
    })
}

/// The changes in the form of the rules; `before` is the client before the change.
pub(super) fn changes(
    message: &pb::UpdateClientRequest,
    before: Option<&Client>,
) -> Result<ClientTokensChange, Status> {
    let types = |list: &pb::GrantTypeList| {
        grant_types(&list.grant_types).map(|grant_types| GrantTypes { grant_types })
    };
    let algorithm = |field, text: &Option<String>| text.as_deref().map(|t| algorithm(field, t)).transpose();
    let format = |text: &String| parse_enum("access_token_format", text, &FORMATS).map(i32::from);
    let assertion = &message.token_endpoint_auth_signing_alg;
    Ok(ClientTokensChange {
        grant_types: message.grant_types.as_ref().map(types).transpose()?,
        jwks: message.jwks.as_deref().map(keys).transpose()?,
        assertion_algorithm: algorithm("token_endpoint_auth_signing_alg", assertion)?,
        dpop_bound: message.dpop_bound_access_tokens,
        userinfo_algorithm: algorithm("userinfo_signed_response_alg", &message.userinfo_signed_response_alg)?,
        access_token_format: message.access_token_format.as_ref().map(format).transpose()?,
        audiences: message.audiences.as_ref().map(|list| Audiences { audiences: list.audiences.clone() }),
        certificate_name: message.tls_client_auth.clone(),
        claims: match &message.claims {
            Some(list) => Some(ClaimRules { claims: claims(&list.claims)? }),
            None => None,
        },
        pairwise_sector: changed_sector(message, before)?,
    })
}

/// The host that subjects are made for from now on; empty means public subjects. If only a host is given, it replaces
/// that of a pairwise client.
fn changed_sector(
    message: &pb::UpdateClientRequest,
    before: Option<&Client>,
) -> Result<Option<String>, Status> {
    if message.subject_type.is_none() && message.sector.is_none() {
        return Ok(None);
    }
    let is_pairwise = before.is_some_and(|client| !client.tokens.pairwise_sector.is_empty());
    let subject_type =
        message.subject_type.clone().unwrap_or_else(|| enum_name(&is_pairwise, &SUBJECT_TYPES));
    let given = message.redirect_uris.as_ref().map(|list| list.uris.as_slice());
    let known = before.map(|client| client.redirect_uris.as_slice()).unwrap_or_default();
    sector(&subject_type, message.sector.as_deref().unwrap_or_default(), given.unwrap_or(known)).map(Some)
}

/// Parses expressions here, because the rules store them as they are written: two versions of the program agree on the
/// stored text.
fn claims(rules: &[pb::ClaimRule]) -> Result<Vec<ClaimRule>, Status> {
    let parse = |rule: &pb::ClaimRule| {
        if is_reserved(&rule.name) {
            return Err(errors::invalid(format!(
                "claims: {} is a reserved name; choose another one",
                rule.name
            )));
        }
        Expression::claim(&rule.expression)
            .map_err(|why| errors::invalid(format!("claims: {}: {why}", rule.name)))?;
        let pb::ClaimRule { name, scope, expression } = rule.clone();
        Ok(ClaimRule { name, scope, expression })
    };
    rules.iter().map(parse).collect()
}

/// Adds the fields of this file to the client.
pub(super) fn fill_proto(client: &Client, so_far: pb::Client) -> pb::Client {
    let tokens = &client.tokens;
    let algorithm =
        |algorithm: Option<SigningAlgorithm>| enum_name(&algorithm.unwrap_or_default(), &ALGORITHMS);
    let is_pairwise = !tokens.pairwise_sector.is_empty();
    let format = if tokens.opaque_access_tokens { AccessTokenFormat::Opaque } else { AccessTokenFormat::Jwt };
    pb::Client {
        grant_types: tokens
            .grant_types()
            .iter()
            .map(|grant_type| enum_name(grant_type, &GRANT_TYPES))
            .collect(),
        jwks: String::from_utf8_lossy(&tokens.jwks).into_owned(),
        token_endpoint_auth_signing_alg: algorithm(tokens.assertion_algorithm),
        dpop_bound_access_tokens: tokens.dpop_bound,
        userinfo_signed_response_alg: algorithm(tokens.userinfo_algorithm),
        subject_type: enum_name(&is_pairwise, &SUBJECT_TYPES),
        sector: tokens.pairwise_sector.clone(),
        access_token_format: enum_name(&format, &FORMATS),
        audiences: tokens.audiences.clone(),
        claims: tokens.claims.iter().map(shown_claim).collect(),
        tls_client_auth: tokens.certificate_name.as_ref().map(ToString::to_string).unwrap_or_default(),
        previous_secret_expires_at_ms: client.previous_secret.map_or(0, |previous| previous.until.0),
        ..so_far
    }
}

fn shown_claim(rule: &conclave_state::client::ClaimRule) -> pb::ClaimRule {
    pb::ClaimRule {
        name: rule.name.to_string(),
        scope: rule.scope.clone(),
        expression: rule.expression.to_string(),
    }
}

fn grant_types(words: &[String]) -> Result<Vec<i32>, Status> {
    let one = |text: &String| match text.as_str() {
        "" => Err(errors::invalid("grant_types: must not contain an empty value")),
        text => parse_enum("grant_types", text, &GRANT_TYPES).map(i32::from),
    };
    words.iter().map(one).collect()
}

/// The named algorithm, or otherwise the one that all keys of the client are for; for RSA keys that name none this is
/// RS256 (RFC 7591 §2).
fn assertion_algorithm(message: &pb::CreateClientRequest) -> Result<i32, Status> {
    let named = algorithm("token_endpoint_auth_signing_alg", &message.token_endpoint_auth_signing_alg)?;
    if named != 0 || message.auth_method != "private_key_jwt" || message.jwks.is_empty() {
        return Ok(named);
    }
    let keys = jwks::parse(message.jwks.as_bytes()).map_err(|why| errors::invalid(format!("jwks: {why}")))?;
    let common = KEY_ALGORITHMS.iter().find(|(alg, _)| keys.iter().all(|key| key.fits(*alg)));
    let (_, found) = common.ok_or_else(|| {
        errors::invalid("token_endpoint_auth_signing_alg: the keys are of several kinds; name the algorithm of the assertions")
    })?;
    Ok(i32::from(*found))
}

/// Checked once, here: every node can read what enters the state.
fn keys(jwks: &str) -> Result<Vec<u8>, Status> {
    if !jwks.is_empty() {
        jwks::parse(jwks.as_bytes()).map_err(|why| errors::invalid(format!("jwks: {why}")))?;
    }
    Ok(jwks.as_bytes().to_vec())
}

/// Checks that a key set for the client's certificates contains at least one.
pub(super) fn check_certificates(jwks: &[u8]) -> Result<(), Status> {
    match jwks::certificates(jwks) {
        Ok(found) if !found.is_empty() => Ok(()),
        Ok(_) => Err(errors::invalid(
            "jwks: self_signed_tls_client_auth needs the certificate as x5c, or its x5t#S256",
        )),
        Err(why) => Err(errors::invalid(format!("jwks: {why}"))),
    }
}

/// Parses an algorithm; empty text means none.
fn algorithm(field: &str, text: &str) -> Result<i32, Status> {
    if text.is_empty() { Ok(0) } else { parse_enum(field, text, &ALGORITHMS).map(i32::from) }
}

/// The one host of all redirect URIs (OIDC Core §8.1), unless another is named.
fn sector(subject_type: &str, sector: &str, redirect_uris: &[String]) -> Result<String, Status> {
    if !parse_enum("subject_type", subject_type, &SUBJECT_TYPES)? {
        return match sector {
            "" => Ok(String::new()),
            _ => Err(errors::invalid("sector: public subjects have none; use subject_type pairwise")),
        };
    }
    if !sector.is_empty() {
        return Ok(sector.to_ascii_lowercase());
    }
    let host = |uri: &String| Url::parse(uri).ok().and_then(|url| url.host_str().map(str::to_owned));
    let mut hosts: Vec<Option<String>> = redirect_uris.iter().map(host).collect();
    hosts.dedup();
    match hosts.as_slice() {
        [Some(host)] => Ok(host.clone()),
        _ => Err(errors::invalid(
            "sector: the redirect URIs do not have one host in common; name the host that subjects are made for",
        )),
    }
}
