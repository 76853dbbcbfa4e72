//! Bearer tokens of this API. A token is a handle whose secret is derived from the write that makes it. It is shown
//! once, and stored as a hash.

use conclave_proto::{
    admin::v1::{self as pb, token_service_server::TokenService},
    command::v1::{CreateApiToken, RevokeApiToken, command::Body},
};
use conclave_state::{
    ReplyBody,
    ids::TokenId,
    token::{ApiRole, ApiToken},
};
use tonic::{Request, Response, Status};

use conclave_crypto::{handle::HandleKind, mac};

use super::{Api, errors};

#[tonic::async_trait]
impl TokenService for Api {
    async fn create_token(
        &self,
        request: Request<pb::CreateTokenRequest>,
    ) -> Result<Response<pb::CreateTokenResponse>, Status> {
        let (writing, message) = self.write(request, "CreateToken").await?;
        let id = TokenId::new(writing.id("token"));
        let secret = writing.write_key.secret("token");
        let body = CreateApiToken {
            token_id: id.to_vec(),
            name: message.name,
            secret_hash: mac::sha256(secret.expose()).to_vec(),
            role: role(&message.role)?.into(),
            ttl_ms: message.ttl_ms,
        };
        let committed = writing.propose(Body::CreateApiToken(body)).await?;
        // The index of the first attempt, so that a retry returns an equal text.
        let ReplyBody::ApiTokenCreated(created) = &committed.body else {
            return Err(Status::internal("unexpected reply to the command"));
        };
        let token =
            committed.state.live_token(id, self.auth.now(&committed.state)).map(|token| to_proto(token));
        let token = token.ok_or_else(|| errors::not_found("token", &id.to_string()))?;
        let secret = self.auth.issue(HandleKind::Api, *id.bytes(), secret, 0, created.index);
        writing.reply(&committed, pb::CreateTokenResponse { token: Some(token), secret })
    }

    async fn list_tokens(
        &self,
        request: Request<pb::ListTokensRequest>,
    ) -> Result<Response<pb::ListTokensResponse>, Status> {
        let (reading, wanted) = self.read(request).await?;
        let listing = self.listing("tokens", wanted.page)?;
        let after = listing.after(|bytes| TokenId::parse(bytes).ok())?;
        let live = reading
            .state
            .tokens_after(after)
            .filter(|t| reading.state.live_token(t.id, reading.now).is_some());
        let (tokens, next_page_token) = listing.page(live.map(|token| (token.id.to_vec(), to_proto(token))));
        reading.reply(pb::ListTokensResponse { tokens, next_page_token })
    }

    async fn revoke_token(
        &self,
        request: Request<pb::RevokeTokenRequest>,
    ) -> Result<Response<pb::RevokeTokenResponse>, Status> {
        let (writing, message) = self.write(request, "RevokeToken").await?;
        let id = TokenId::from_hex(&message.id).ok_or_else(|| errors::invalid("id must be 32 hex digits"))?;
        let body = Body::RevokeApiToken(RevokeApiToken { token_id: id.to_vec() });
        let committed = writing.propose(body).await?;
        writing.reply(&committed, pb::RevokeTokenResponse {})
    }
}

fn role(text: &str) -> Result<ApiRole, Status> {
    match text {
        "reader" => Ok(ApiRole::Reader),
        "admin" => Ok(ApiRole::Admin),
        "registrar" => Ok(ApiRole::Registrar),
        _ => Err(errors::invalid(format!("role: {text:?} is not one of reader, admin, registrar"))),
    }
}

fn to_proto(token: &ApiToken) -> pb::Token {
    pb::Token {
        id: token.id.to_string(),
        name: token.name.clone(),
        role: match token.role {
            ApiRole::Reader => "reader".into(),
            ApiRole::Admin => "admin".into(),
            ApiRole::Registrar => "registrar".into(),
            ApiRole::Unspecified => String::new(),
        },
        expires_at_ms: token.expires_at.unwrap_or_default().0,
        created_at_ms: token.created_at.0,
    }
}
