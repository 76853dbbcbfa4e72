//! Users. Passwords arrive in clear over this API and are hashed at once in the argon2 pool. They are removed from the
//! message before anything else reads it.

use conclave_proto::{
    admin::v1::{self as pb, user_service_server::UserService},
    command::v1::{
        Attribute, Attributes, CreateUser, DeleteUser, RenameUser, ResetPassword, SetPassword, UnlockUser,
        UpdateUser, command::Body,
    },
};
use conclave_state::{State, ids::UserId, user::User};
use tonic::{Request, Response, Status};

use conclave_auth::notices::Whose;
use conclave_base::text;
use conclave_cluster::CommittedWrite;
use conclave_crypto::password::{MIN_PASSWORD_CHARS, PlaintextPassword};

use super::{Api, errors, names, request::Writing};

#[tonic::async_trait]
impl UserService for Api {
    async fn create_user(
        &self,
        mut request: Request<pb::CreateUserRequest>,
    ) -> Result<Response<pb::User>, Status> {
        let password = std::mem::take(&mut request.get_mut().password);
        let (mut writing, message) = self.write(request, "CreateUser").await?;
        let id = UserId::new(writing.id("user"));
        let group_ids = writing.groups(&message.groups).await?;
        let password_phc = if password.is_empty() { String::new() } else { writing.hash(password).await? };
        let body = CreateUser {
            user_id: id.to_vec(),
            username: message.username,
            display_name: text::nfc(&message.display_name),
            email: text::address(&message.email),
            email_verified: message.email_verified,
            attributes: Some(attributes(message.attributes)),
            group_ids,
            password_phc,
        };
        let committed = writing.propose(Body::CreateUser(body)).await?;
        let user = find_proto(&committed.state, id)?;
        writing.reply(&committed, user)
    }

    async fn get_user(&self, request: Request<pb::GetUserRequest>) -> Result<Response<pb::User>, Status> {
        let (reading, wanted) = self.read(request).await?;
        let id = names::user(&reading.state, &wanted.user);
        let id = id.ok_or_else(|| errors::not_found("user", &wanted.user))?;
        reading.reply(find_proto(&reading.state, id)?)
    }

    async fn list_users(
        &self,
        request: Request<pb::ListUsersRequest>,
    ) -> Result<Response<pb::ListUsersResponse>, Status> {
        let (reading, wanted) = self.read(request).await?;
        let listing = self.listing("users", wanted.page)?;
        let after = listing.after(|bytes| UserId::parse(bytes).ok())?;
        let rows =
            reading.state.users_after(after).map(|user| (user.id.to_vec(), to_proto(&reading.state, user)));
        let (users, next_page_token) = listing.page(rows);
        reading.reply(pb::ListUsersResponse { users, next_page_token })
    }

    async fn update_user(
        &self,
        request: Request<pb::UpdateUserRequest>,
    ) -> Result<Response<pb::User>, Status> {
        let (mut writing, message) = self.write(request, "UpdateUser").await?;
        let id = writing.user(&message.user).await?;
        let body = UpdateUser {
            user_id: id.to_vec(),
            display_name: message.display_name.as_deref().map(text::nfc),
            email: message.email.as_deref().map(text::address),
            email_verified: message.email_verified,
            disabled: message.disabled,
            attributes: message.attributes.map(|map| attributes(map.entries)),
        };
        let (enables, disables) = (body.disabled == Some(false), body.disabled == Some(true));
        let mut committed = writing.propose(Body::UpdateUser(body)).await?;
        if enables && writing.can_unlock().is_ok() {
            committed = writing.unlock(id).await?;
        }
        let not_told = if disables { writing.not_told(Whose::User(id)).await } else { Vec::new() };
        let user = pb::User { not_told, ..find_proto(&committed.state, id)? };
        writing.reply(&committed, user)
    }

    async fn set_password(
        &self,
        mut request: Request<pb::SetPasswordRequest>,
    ) -> Result<Response<pb::SetPasswordResponse>, Status> {
        let password = std::mem::take(&mut request.get_mut().password);
        let (mut writing, message) = self.write(request, "SetPassword").await?;
        let id = writing.user(&message.user).await?;
        let password_phc = writing.hash(password).await?;
        let (user_id, keep_sessions) = (id.to_vec(), message.keep_sessions);
        let body = if message.keep_app_passwords {
            Body::SetPassword(SetPassword { user_id, password_phc, keep_sessions })
        } else {
            Body::ResetPassword(ResetPassword { user_id, password_phc, keep_sessions })
        };
        let mut committed = writing.propose(body).await?;
        if writing.can_unlock().is_ok() {
            committed = writing.unlock(id).await?;
        }
        let not_told = if keep_sessions { Vec::new() } else { writing.not_told(Whose::User(id)).await };
        writing.reply(&committed, pb::SetPasswordResponse { not_told })
    }

    async fn delete_user(
        &self,
        request: Request<pb::DeleteUserRequest>,
    ) -> Result<Response<pb::DeleteUserResponse>, Status> {
        let (mut writing, message) = self.write(request, "DeleteUser").await?;
        let id = writing.user(&message.user).await?;
        let committed = writing.propose(Body::DeleteUser(DeleteUser { user_id: id.to_vec() })).await?;
        let not_told = writing.not_told(Whose::User(id)).await;
        writing.reply(&committed, pb::DeleteUserResponse { not_told })
    }

    async fn unlock_user(
        &self,
        request: Request<pb::UnlockUserRequest>,
    ) -> Result<Response<pb::UnlockUserResponse>, Status> {
        let (mut writing, message) = self.write(request, "UnlockUser").await?;
        let id = writing.user(&message.user).await?;
        writing.can_unlock()?;
        let committed = writing.unlock(id).await?;
        writing.reply(&committed, pb::UnlockUserResponse {})
    }

    async fn rename_user(
        &self,
        request: Request<pb::RenameUserRequest>,
    ) -> Result<Response<pb::User>, Status> {
        let (mut writing, message) = self.write(request, "RenameUser").await?;
        let id = writing.user(&message.user).await?;
        writing.can_rename()?;
        let body = RenameUser { user_id: id.to_vec(), username: message.username, force: message.force };
        let committed = writing.propose(Body::RenameUser(body)).await?;
        let user = find_proto(&committed.state, id)?;
        writing.reply(&committed, user)
    }
}

impl Writing {
    /// Ends a lock-out, so that an operator who rescues an account lets its owner in at once.
    async fn unlock(&self, user: UserId) -> Result<CommittedWrite, Status> {
        let command = UnlockUser { user_id: user.to_vec() };
        self.propose_then("unlock".into(), Body::UnlockUser(command)).await
    }

    /// The PHC string of a new password. The salt is derived from the write, so that a retry makes an equal command.
    async fn hash(&self, password: String) -> Result<String, Status> {
        let password = PlaintextPassword::new(password).map_err(|error| errors::password(&error))?;
        if password.char_count() < MIN_PASSWORD_CHARS {
            return Err(errors::invalid(format!("a password has at least {MIN_PASSWORD_CHARS} characters")));
        }
        let hashed = self.api.auth.passwords().hash(password, self.id("salt")).await;
        hashed.map_err(|error| errors::password(&error))
    }
}

fn attributes(map: std::collections::BTreeMap<String, String>) -> Attributes {
    let normal = |(name, value): (String, String)| Attribute { name, value: text::nfc(&value) };
    Attributes { entries: map.into_iter().map(normal).collect() }
}

fn find_proto(state: &State, id: UserId) -> Result<pb::User, Status> {
    state.user(id).map(|user| to_proto(state, user)).ok_or_else(|| errors::not_found("user", &id.to_string()))
}

fn to_proto(state: &State, user: &User) -> pb::User {
    pb::User {
        id: user.id.to_string(),
        username: user.username.to_string(),
        display_name: user.display_name.clone(),
        email: user.email.clone(),
        email_verified: user.email_verified,
        attributes: user.attributes.iter().cloned().collect(),
        disabled: user.disabled,
        groups: state.group_names_of(user).map(str::to_owned).collect(),
        created_at_ms: user.created_at.0,
        updated_at_ms: user.updated_at.0,
        has_password: state.password(user.id).is_some(),
        not_told: Vec::new(),
    }
}
