//! App passwords, which programs send to a check by HTTP Basic. An app password is a handle whose secret is derived
//! from the write that makes it. It is shown once, and stored as a keyed hash.

use conclave_proto::{
    admin::v1::{self as pb, app_password_service_server::AppPasswordService},
    command::v1::{CreateAppPassword, RevokeAppPassword, command::Body},
};
use conclave_state::{ReplyBody, State, app_password::AppPassword, ids::AppPasswordId};
use tonic::{Request, Response, Status};

use conclave_auth::machine_client::app_password_hash;
use conclave_crypto::handle::HandleKind;

use super::{Api, errors, names};

#[tonic::async_trait]
impl AppPasswordService for Api {
    async fn create_app_password(
        &self,
        request: Request<pb::CreateAppPasswordRequest>,
    ) -> Result<Response<pb::CreateAppPasswordResponse>, Status> {
        let (mut writing, message) = self.write(request, "CreateAppPassword").await?;
        let id = AppPasswordId::new(writing.id("app-password"));
        let secret = writing.write_key.secret("app-password");
        let user_id = writing.user(&message.user).await?.to_vec();
        let application_id = match message.application.as_str() {
            "" => Vec::new(),
            name => writing.application(name).await?.to_vec(),
        };
        let body = CreateAppPassword {
            app_password_id: id.to_vec(),
            user_id,
            application_id,
            name: message.name,
            secret_hash: app_password_hash(&self.auth.deriving_keys().app_password, &secret).to_vec(),
            secret_id: self.auth.deriving_keys().secret_check.to_vec(),
            ttl_ms: message.ttl_ms,
        };
        let committed = writing.propose(Body::CreateAppPassword(body)).await?;
        // The index of the first attempt, so that a retry returns an equal text.
        let ReplyBody::ApiTokenCreated(created) = &committed.body else {
            return Err(Status::internal("unexpected reply to the command"));
        };
        let made = committed.state.live_app_password(id, self.auth.now(&committed.state));
        let made = made.map(|(password, _)| to_proto(&committed.state, password));
        let made = made.ok_or_else(|| errors::not_found("app password", &id.to_string()))?;
        let secret = self.auth.issue(HandleKind::AppPassword, *id.bytes(), secret, 0, created.index);
        writing.reply(&committed, pb::CreateAppPasswordResponse { app_password: Some(made), secret })
    }

    async fn list_app_passwords(
        &self,
        request: Request<pb::ListAppPasswordsRequest>,
    ) -> Result<Response<pb::ListAppPasswordsResponse>, Status> {
        let (reading, wanted) = self.read(request).await?;
        let of = match wanted.user.as_str() {
            "" => None,
            name => {
                let user = names::user(&reading.state, name);
                Some(user.ok_or_else(|| errors::not_found("user", name))?)
            }
        };
        let listing = self.listing("app-passwords", wanted.page)?;
        let after = listing.after(|bytes| AppPasswordId::parse(bytes).ok())?;
        let good = |row: &AppPassword| reading.state.is_app_password_good(row, reading.now);
        let rows = reading.state.app_passwords_after(after);
        let rows = rows.filter(|row| of.is_none_or(|user| row.user == user) && good(row));
        let (app_passwords, next_page_token) =
            listing.page(rows.map(|row| (row.id.to_vec(), to_proto(&reading.state, row))));
        reading.reply(pb::ListAppPasswordsResponse { app_passwords, next_page_token })
    }

    async fn revoke_app_password(
        &self,
        request: Request<pb::RevokeAppPasswordRequest>,
    ) -> Result<Response<pb::RevokeAppPasswordResponse>, Status> {
        let (writing, message) = self.write(request, "RevokeAppPassword").await?;
        let id = AppPasswordId::from_hex(&message.id)
            .ok_or_else(|| errors::invalid("id must be 32 hex digits"))?;
        let body = Body::RevokeAppPassword(RevokeAppPassword { app_password_id: id.to_vec() });
        let committed = writing.propose(body).await?;
        writing.reply(&committed, pb::RevokeAppPasswordResponse {})
    }
}

fn to_proto(state: &State, row: &AppPassword) -> pb::AppPassword {
    let application = row.application.and_then(|id| state.application(id));
    pb::AppPassword {
        id: row.id.to_string(),
        username: state.user(row.user).map(|user| user.username.to_string()).unwrap_or_default(),
        application: application.map(|application| application.slug.to_string()).unwrap_or_default(),
        name: row.name.clone(),
        expires_at_ms: row.expires_at.unwrap_or_default().0,
        created_at_ms: row.created_at.0,
    }
}
