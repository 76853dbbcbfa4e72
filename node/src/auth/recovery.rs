//! The way back in when nobody can administer the cluster any more: a link, made from the cluster secret on a node's
//! machine, with or without a cluster that runs. It is good once, for a quarter of an hour. Whoever opens it sets a
//! password for an account that is then enabled and in the group of administrators. The account is created only by a
//! link that was made to.

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
    password::Password,
};

use super::{Auth, AuthError, derive::Derivation, ticket::TicketError};

/// What the seal is for.
const PURPOSE: &str = "recovery-link/1";
/// Long enough to walk to another machine with it.
const LIFE: Duration = Duration::from_mins(15);

/// Who is let back in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recovery {
    id: [u8; 16],
    pub username: String,
    /// Whether the account is created if there is none.
    #[serde(default)]
    create: bool,
    expires_at_ms: u64,
}

impl Recovery {
    /// Whether there is no account for this link, and it may not create one: the name was mistyped, or the account is
    /// gone.
    pub fn lacks_account(&self, state: &State) -> bool {
        !self.create && state.user_by_name(&self.username).is_none()
    }
}

/// A link's text. Takes the cluster secret's keys: whoever has them is root anyway (design.md §5).
///
/// # Errors
/// When the name is too long to be sealed.
pub fn make(
    keys: &ClusterKeys,
    runtime: &Runtime,
    username: &str,
    create: bool,
) -> Result<String, SealError> {
    let life = u64::try_from(LIFE.as_millis()).unwrap_or(u64::MAX);
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

    /// Uses the link up, and lets its person back in with this password. Ends every session and app password that they
    /// have.
    ///
    /// # Errors
    /// [`AuthError`]; a refusal with `TicketSpent` says that the link was used before.
    pub async fn recover(
        &self,
        recovery: &Recovery,
        password: Password,
        derivation: &Derivation,
    ) -> Result<(), AuthError> {
        let hashed = self.passwords().hash(password, derivation.id("salt")).await;
        let password_phc = hashed.map_err(|_| AuthError::Busy)?;
        let state = self.change(derivation, "spend", spend(recovery)).await?;
        let state = self.admins_in(state, derivation).await?;
        match state.user_by_name(&recovery.username).cloned() {
            None => self.come_as_new(&state, recovery, password_phc, derivation).await?,
            Some(user) => self.come_back(&state, &user, password_phc, derivation).await?,
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
        derivation: &Derivation,
    ) -> Result<std::sync::Arc<State>, AuthError> {
        if state.group_by_name(ADMINS).is_some() {
            return Ok(state);
        }
        let group_id = GroupId::new(derivation.id("group")).to_vec();
        let order = CreateGroup { group_id, name: ADMINS.into(), description: "Administrators".into() };
        self.change(derivation, "group", Body::CreateGroup(order)).await
    }

    async fn come_as_new(
        &self,
        state: &State,
        recovery: &Recovery,
        password_phc: String,
        derivation: &Derivation,
    ) -> Result<(), AuthError> {
        let order = CreateUser {
            user_id: UserId::new(derivation.id("user")).to_vec(),
            username: recovery.username.clone(),
            group_ids: state.group_by_name(ADMINS).map(|group| group.id.to_vec()).into_iter().collect(),
            password_phc,
            ..CreateUser::default()
        };
        self.change(derivation, "create", Body::CreateUser(order)).await.map(drop)
    }

    async fn come_back(
        &self,
        state: &State,
        user: &User,
        password_phc: String,
        derivation: &Derivation,
    ) -> Result<(), AuthError> {
        let user_id = user.id.to_vec();
        // With the app passwords: whoever lost the account may have made some.
        let order = ResetPassword { user_id: user_id.clone(), password_phc, keep_sessions: false };
        self.change(derivation, "password", Body::ResetPassword(order)).await?;
        if let Some(group) = state.group_by_name(ADMINS).filter(|group| !user.groups.contains(&group.id)) {
            let order = AddGroupMember { group_id: group.id.to_vec(), user_id: user_id.clone() };
            self.change(derivation, "member", Body::AddGroupMember(order)).await?;
        }
        if user.disabled {
            let order =
                UpdateUser { user_id: user_id.clone(), disabled: Some(false), ..UpdateUser::default() };
            self.change(derivation, "enable", Body::UpdateUser(order)).await?;
        }
        // Whoever guessed at the account must not keep its owner out. An older member does not know the command.
        if state.meta().level >= level::STRENGTHENING {
            self.change(derivation, "unlock", Body::UnlockUser(UnlockUser { user_id })).await?;
        }
        Ok(())
    }

    async fn change(
        &self,
        derivation: &Derivation,
        label: &str,
        body: Body,
    ) -> Result<std::sync::Arc<State>, AuthError> {
        Ok(self.cluster().propose(derivation.then(label).request(), body).await?.state)
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
