//! Steps of reading a request, shared by the endpoint and by pushed requests: request object, validation, hint.

use conclave_auth::authorization::{AuthorizationError, AuthorizationRequest};

use crate::{
    Oidc,
    authorization::{
        hint::{self, Unread},
        request::{InvalidRequest, Mistake, NoWayBack, Parameters, RequestContext, validate},
        request_object,
    },
};

/// The parameters of the request object, if there is one, instead of those around it.
///
/// # Errors
/// [`NoWayBack`].
pub(crate) async fn opened(oidc: &Oidc, parameters: Parameters) -> Result<Parameters, NoWayBack> {
    if parameters.get("request").is_none() {
        return Ok(parameters);
    }
    // A removed key must open nothing from then on, on any node.
    let served = oidc.auth.cluster().serving_view(0).await;
    let state = served.map_err(|_| NoWayBack::RequestObject("it cannot be checked at the moment"))?;
    let issuer = oidc.auth.settings().public_url.issuer();
    request_object::opened(parameters, &state, issuer, oidc.auth.now(&state).0)
}

/// Validates the request. The client may have been registered a moment ago on another node, so the leader is consulted
/// before it counts as unknown.
///
/// # Errors
/// [`InvalidRequest`].
pub(crate) async fn validated(
    oidc: &Oidc,
    parameters: &Parameters,
    circumstances: RequestContext,
) -> Result<AuthorizationRequest, InvalidRequest> {
    // A browser must not be sent to a removed address, on any node.
    let Ok(state) = oidc.auth.cluster().serving_view(0).await else {
        return Err(InvalidRequest::Here(NoWayBack::Unavailable));
    };
    let result = validate(parameters, &state, circumstances);
    match result {
        Err(InvalidRequest::Here(NoWayBack::UnknownClient | NoWayBack::UnregisteredRedirectUri)) => {
            match oidc.auth.cluster().confirmed_view().await {
                Some(state) => validate(parameters, &state, circumstances),
                None => Err(InvalidRequest::Here(NoWayBack::Unavailable)),
            }
        }
        result => result,
    }
}

/// Applies the `id_token_hint`: the user that it names must be the signed-in one.
pub(crate) async fn hinted(
    oidc: &Oidc,
    parameters: &Parameters,
    mut request: AuthorizationRequest,
) -> Result<AuthorizationRequest, InvalidRequest> {
    let Some(token) = parameters.get("id_token_hint") else { return Ok(request) };
    let (error, description) = match hint::read(oidc, token).await {
        Ok(hint) if request.subject.as_ref().is_none_or(|subject| *subject == hint.sub) => {
            request.subject = Some(hint.sub);
            return Ok(request);
        }
        Ok(_) => (AuthorizationError::InvalidRequest, "id_token_hint and claims name different users"),
        Err(Unread::Foreign) => (AuthorizationError::InvalidRequest, "id_token_hint was not made here"),
        Err(Unread::Unavailable) => (AuthorizationError::TemporarilyUnavailable, "try again in a moment"),
    };
    let omits_error_issuer = oidc.auth.omits_error_issuer(&request.client_id);
    Err(InvalidRequest::There(Mistake {
        omits_error_issuer,
        redirect_uri: request.redirect_uri,
        mode: request.response_mode,
        state: request.state,
        error,
        description,
    }))
}
