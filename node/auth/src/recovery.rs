//! Recovery of administration when no administrator can sign in any more: a link, made from the cluster secret on a
//! node's machine, with or without a running cluster. It can be used once, within a quarter of an hour. Its user sets a
//! password for an account, which is then enabled and in the group of administrators. The account is created only by a
//! link that was made to do so.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use conclave_proto::command::v1::{
    AddGroupMember, CreateGroup, CreateUser, ResetPassword, SpendProofs, SpentProof, UnlockUser, UpdateUser,
    command::Body, spent_proof::Kind,
};
use conclave_state::{
    State,
    ids::{GroupId, UserId},
    level,
    policy::guard::ADMINS,
    user::User,
};
use serde::{Deserialize, Serialize};

use conclave_base::runtime::Runtime;
use conclave_crypto::{
    aead::{SealError, Sealer},
    keys::ClusterKeys,
    password::PlaintextPassword,
};

use super::{Auth, AuthError, ticket::TicketError, write_key::WriteKey};

/// The purpose that the seal is bound to.
const PURPOSE: &str = "recovery-link/1";
/// Lifetime of a link: long enough to walk to another machine with it.
const LIFETIME: Duration = Duration::from_mins(15);

/// The account that a link recovers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recovery {
    id: [u8; 16],
    pub username: String,
    /// True if the account is created when it does not exist.
    #[serde(default)]
    create: bool,
    expires_at_ms: u64,
}

impl Recovery {
    /// True if there is no account for this link, and the link may not create one: the name was mistyped, or the
    /// account was deleted.
    pub fn lacks_account(&self, state: &State) -> bool {
        !self.create && state.user_by_name(&self.username).is_none()
    }
}

/// Makes the text of a link. Takes the keys of the cluster secret: their holder controls the cluster anyway
/// (docs/design/consensus.md).
///
/// # Errors
/// Fails if the name is too long to be sealed.
pub fn make(
    keys: &ClusterKeys,
    runtime: &Runtime,
    username: &str,
    create: bool,
) -> Result<String, SealError> {
    let life = u64::try_from(LIFETIME.as_millis()).unwrap_or(u64::MAX);
    let recovery = Recovery {
        id: runtime.entropy.bytes(),
        username: username.to_owned(),
        create,
        expires_at_ms: runtime.clock.now_ms().saturating_add(life),
    };
    let plain = serde_json::to_vec(&recovery).unwrap_or_default();
    let sealed = Sealer::new(&keys.ticket).seal(PURPOSE, &plain, &*runtime.entropy)?;
    Ok(URL_SAFE_NO_PAD.encode(sealed))
}

impl Auth {
    /// Opens a link.
    ///
    /// # Errors
    /// [`TicketError`].
    pub fn open_recovery(&self, text: &str) -> Result<Recovery, TicketError> {
        let recovery: Recovery = self.open_sealed(PURPOSE, text)?;
        if self.runtime().clock.now_ms() >= recovery.expires_at_ms {
            return Err(TicketError::Expired);
        }
        Ok(recovery)
    }

    /// Spends the link and gives its account this password. Ends all sessions and app passwords of the account.
    ///
    /// # Errors
    /// [`AuthError`]; a refusal with `TicketSpent` means that the link was used before.
    pub async fn recover(
        &self,
        recovery: &Recovery,
        password: PlaintextPassword,
        write_key: &WriteKey,
    ) -> Result<(), AuthError> {
        let hashed = self.passwords().hash(password, write_key.id("salt")).await;
        let password_phc = hashed.map_err(|_| AuthError::Busy)?;
        let state = self.change(write_key, "spend", spend(recovery)).await?;
        let state = self.admins_in(state, write_key).await?;
        match state.user_by_name(&recovery.username).cloned() {
            None => self.come_as_new(&state, recovery, password_phc, write_key).await?,
            Some(user) => self.come_back(&state, &user, password_phc, write_key).await?,
        }
        tracing::warn!(
            target: "conclave::audit",
            { user.name = %recovery.username },
            "{} was let back in as an administrator by a recovery link",
            recovery.username
        );
        Ok(())
    }

    async fn admins_in(
        &self,
        state: std::sync::Arc<State>,
        write_key: &WriteKey,
    ) -> Result<std::sync::Arc<State>, AuthError> {
        if state.group_by_name(ADMINS).is_some() {
            return Ok(state);
        }
        let group_id = GroupId::new(write_key.id("group")).to_vec();
        let command = CreateGroup { group_id, name: ADMINS.into(), description: "Administrators".into() };
        self.change(write_key, "group", Body::CreateGroup(command)).await
    }

    async fn come_as_new(
        &self,
        state: &State,
        recovery: &Recovery,
        password_phc: String,
        write_key: &WriteKey,
    ) -> Result<(), AuthError> {
        let command = CreateUser {
            user_id: UserId::new(write_key.id("user")).to_vec(),
            username: recovery.username.clone(),
            group_ids: state.group_by_name(ADMINS).map(|group| group.id.to_vec()).into_iter().collect(),
            password_phc,
            ..CreateUser::default()
        };
        self.change(write_key, "create", Body::CreateUser(command)).await.map(drop)
    }

    async fn come_back(
        &self,
        state: &State,
        user: &User,
        password_phc: String,
        write_key: &WriteKey,
    ) -> Result<(), AuthError> {
        let user_id = user.id.to_vec();
        // App passwords end as well: an attacker who controlled the account may have made some.
        let command = ResetPassword { user_id: user_id.clone(), password_phc, keep_sessions: false };
        self.change(write_key, "password", Body::ResetPassword(command)).await?;
        if let Some(group) = state.group_by_name(ADMINS).filter(|group| !user.groups.contains(&group.id)) {
            let command = AddGroupMember { group_id: group.id.to_vec(), user_id: user_id.clone() };
            self.change(write_key, "member", Body::AddGroupMember(command)).await?;
        }
        if user.disabled {
            let command =
                UpdateUser { user_id: user_id.clone(), disabled: Some(false), ..UpdateUser::default() };
            self.change(write_key, "enable", Body::UpdateUser(command)).await?;
        }
        // An attacker's guesses must not keep the owner out. Older members do not know this command.
        if state.meta().level >= level::STRENGTHENING {
            self.change(write_key, "unlock", Body::UnlockUser(UnlockUser { user_id })).await?;
        }
        Ok(())
    }

    async fn change(
        &self,
        write_key: &WriteKey,
        label: &str,
        body: Body,
    ) -> Result<std::sync::Arc<State>, AuthError> {
        Ok(self.cluster().propose(write_key.then(label).request(), body).await?.state)
    }
}

fn spend(recovery: &Recovery) -> Body {
    Body::SpendProofs(SpendProofs {
        proofs: vec![SpentProof {
            kind: Kind::RecoveryLink.into(),
            proof_id: recovery.id.to_vec(),
            expires_at_ms: recovery.expires_at_ms,
            client_id: String::new(),
        }],
    })
}
