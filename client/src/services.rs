//! The API's services, typed: one line an RPC. A test holds this list against the API's descriptor.

use crate::{Client, Error, call::Rpc, v1};

macro_rules! writes {
    (read) => {
        false
    };
    (write) => {
        true
    };
}

macro_rules! services {
    ($(
        $(#[$doc:meta])*
        $accessor:ident: $name:ident = $service:literal {
            $( $(#[$rpc_doc:meta])* $kind:ident $method:ident = $rpc:literal($request:ident) -> $reply:ident; )*
        }
    )*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug)]
            pub struct $name(Client);

            impl $name {
                $(
                    $(#[$rpc_doc])*
                    ///
                    /// # Errors
                    /// [`Error`].
                    pub async fn $method(&self, request: v1::$request) -> Result<v1::$reply, Error> {
                        let path = concat!("/conclave.admin.v1.", $service, "/", $rpc);
                        self.0.call(Rpc { path, writes: writes!($kind) }, request).await
                    }
                )*
            }
        )*

        impl Client {
            $(
                $(#[$doc])*
                pub fn $accessor(&self) -> $name {
                    $name(self.clone())
                }
            )*
        }

        /// Every RPC above.
        #[cfg(test)]
        pub(crate) const RPCS: &[&str] = &[$($(concat!($service, "/", $rpc)),*),*];
    };
}

services! {
    /// People.
    users: Users = "UserService" {
        /// Makes a user.
        write create = "CreateUser"(CreateUserRequest) -> User;
        /// One user, by name or id.
        read get = "GetUser"(GetUserRequest) -> User;
        /// A page of users.
        read list = "ListUsers"(ListUsersRequest) -> ListUsersResponse;
        /// Changes the fields that are given. Disabling ends the user's sessions and grants.
        write update = "UpdateUser"(UpdateUserRequest) -> User;
        /// Sets a password; ends the user's sessions and grants unless told otherwise.
        write set_password = "SetPassword"(SetPasswordRequest) -> SetPasswordResponse;
        /// Deletes a user with sessions and grants.
        write delete = "DeleteUser"(DeleteUserRequest) -> DeleteUserResponse;
        /// Ends a lock-out.
        write unlock = "UnlockUser"(UnlockUserRequest) -> UnlockUserResponse;
        /// Gives a user another username.
        write rename = "RenameUser"(RenameUserRequest) -> User;
    }
    /// Groups of people.
    groups: Groups = "GroupService" {
        /// Makes a group.
        write create = "CreateGroup"(CreateGroupRequest) -> Group;
        /// A page of groups.
        read list = "ListGroups"(ListGroupsRequest) -> ListGroupsResponse;
        /// Deletes a group; access rules that name it admit fewer.
        write delete = "DeleteGroup"(DeleteGroupRequest) -> DeleteGroupResponse;
        /// Gives a group another name.
        write rename = "RenameGroup"(RenameGroupRequest) -> Group;
        /// Puts a user into a group.
        write add_member = "AddMember"(MemberRequest) -> MemberResponse;
        /// Takes a user out of a group.
        write remove_member = "RemoveMember"(MemberRequest) -> MemberResponse;
    }
    /// Applications: what people open, on which hosts, and who may.
    applications: Applications = "ApplicationService" {
        /// Makes an application.
        write create = "CreateApplication"(CreateApplicationRequest) -> Application;
        /// One application, by slug or id.
        read get = "GetApplication"(GetApplicationRequest) -> Application;
        /// A page of applications.
        read list = "ListApplications"(ListApplicationsRequest) -> ListApplicationsResponse;
        /// Changes the fields that are given.
        write update = "UpdateApplication"(UpdateApplicationRequest) -> Application;
        /// Deletes an application that no client belongs to.
        write delete = "DeleteApplication"(DeleteApplicationRequest) -> DeleteApplicationResponse;
    }
    /// OIDC clients.
    clients: Clients = "ClientService" {
        /// Makes a client. Its secret is in the answer and nowhere again.
        write create = "CreateClient"(CreateClientRequest) -> CreateClientResponse;
        /// One client.
        read get = "GetClient"(GetClientRequest) -> Client;
        /// A page of clients.
        read list = "ListClients"(ListClientsRequest) -> ListClientsResponse;
        /// Changes the fields that are given. Disabling ends what was granted to it.
        write update = "UpdateClient"(UpdateClientRequest) -> Client;
        /// A new secret; the old one stops at once.
        write rotate_secret = "RotateClientSecret"(RotateClientSecretRequest) -> RotateClientSecretResponse;
        /// Deletes a client with what was granted to it.
        write delete = "DeleteClient"(DeleteClientRequest) -> DeleteClientResponse;
        /// What a person allowed, of clients that ask once.
        read list_consents = "ListConsents"(ListConsentsRequest) -> ListConsentsResponse;
        /// Takes back what a person allowed a client, with every grant.
        write revoke_consent = "RevokeConsent"(RevokeConsentRequest) -> RevokeConsentResponse;
    }
    /// Other providers at which people may sign in.
    upstreams: Upstreams = "UpstreamService" {
        /// Adds a provider.
        write create = "CreateUpstream"(CreateUpstreamRequest) -> Upstream;
        /// One provider.
        read get = "GetUpstream"(GetUpstreamRequest) -> Upstream;
        /// A page of providers.
        read list = "ListUpstreams"(ListUpstreamsRequest) -> ListUpstreamsResponse;
        /// Changes the fields that are given. Disabling ends the sessions that it opened.
        write update = "UpdateUpstream"(UpdateUpstreamRequest) -> Upstream;
        /// Removes a provider with every identity there.
        write delete = "DeleteUpstream"(DeleteUpstreamRequest) -> DeleteUpstreamResponse;
        /// What a person is called at providers.
        read list_identities = "ListIdentities"(ListIdentitiesRequest) -> ListIdentitiesResponse;
        /// Ends a link, and the sessions that came by it.
        write unlink_identity = "UnlinkIdentity"(UnlinkIdentityRequest) -> UnlinkIdentityResponse;
        /// Somebody may come in from the Atmosphere, once.
        write invite_identity = "InviteIdentity"(InviteIdentityRequest) -> Invitation;
        /// A page of invitations that are open.
        read list_invitations = "ListInvitations"(ListInvitationsRequest) -> ListInvitationsResponse;
        /// Takes an invitation back.
        write revoke_invitation = "RevokeInvitation"(RevokeInvitationRequest) -> RevokeInvitationResponse;
    }
    /// Who may open an application, beyond its access rule.
    policies: Policies = "PolicyService" {
        /// Sets an application's policy, or its candidate.
        write set = "SetPolicy"(SetPolicyRequest) -> ApplicationPolicy;
        /// An application's policy and candidate.
        read get = "GetPolicy"(GetPolicyRequest) -> ApplicationPolicy;
        /// Takes a policy, or a candidate, away: the access rule holds again.
        write remove = "RemovePolicy"(RemovePolicyRequest) -> RemovePolicyResponse;
        /// The candidate becomes the policy.
        write promote = "PromoteCandidate"(PromoteCandidateRequest) -> ApplicationPolicy;
        /// Who could open it, and why.
        read test = "TestPolicy"(TestPolicyRequest) -> TestPolicyResponse;
        /// Why a decision of the node that is asked was made.
        read explain = "ExplainDecision"(ExplainDecisionRequest) -> Decision;
        read decisions = "ListDecisions"(ListDecisionsRequest) -> ListDecisionsResponse;
        /// What the node that is asked saw of a candidate.
        read shadow = "GetShadowReport"(GetShadowReportRequest) -> ShadowReport;
        /// What a candidate makes of the decisions that the node that is asked recorded.
        read replay = "ReplayCandidate"(ReplayCandidateRequest) -> ReplayCandidateResponse;
    }
    /// Who is signed in.
    sessions: Sessions = "SessionService" {
        /// A page of live sessions, of one user or of all.
        read list = "ListSessions"(ListSessionsRequest) -> ListSessionsResponse;
        /// Ends a session. One that is over already is answered alike.
        write revoke = "RevokeSession"(RevokeSessionRequest) -> RevokeSessionResponse;
        /// Ends every session and grant of a user.
        write revoke_of_user = "RevokeUserSessions"(RevokeUserSessionsRequest) -> RevokeUserSessionsResponse;
        /// Back-channel logouts that clients have not taken yet. The node that leads knows why.
        read notices = "ListNotices"(ListNoticesRequest) -> ListNoticesResponse;
    }
    /// Keys that tokens are signed with.
    keys: Keys = "KeyService" {
        /// A page of published keys.
        read list = "ListKeys"(ListKeysRequest) -> ListKeysResponse;
        /// Publishes the next key of an algorithm, and signs with it at once when asked.
        write rotate = "RotateKey"(RotateKeyRequest) -> SigningKey;
        /// Takes a key that does not sign out of publication.
        write retire = "RetireKey"(RetireKeyRequest) -> RetireKeyResponse;
    }
    /// Bearer tokens of this API.
    tokens: Tokens = "TokenService" {
        /// Makes a token. Its text is in the answer and nowhere again.
        write create = "CreateToken"(CreateTokenRequest) -> CreateTokenResponse;
        /// A page of tokens.
        read list = "ListTokens"(ListTokensRequest) -> ListTokensResponse;
        /// Ends a token.
        write revoke = "RevokeToken"(RevokeTokenRequest) -> RevokeTokenResponse;
    }
    /// Passwords of programs, for HTTP Basic at the check.
    app_passwords: AppPasswords = "AppPasswordService" {
        /// Makes an app password. Its text is in the answer and nowhere again.
        write create = "CreateAppPassword"(CreateAppPasswordRequest) -> CreateAppPasswordResponse;
        /// A page of app passwords, of one user or of all.
        read list = "ListAppPasswords"(ListAppPasswordsRequest) -> ListAppPasswordsResponse;
        /// Ends an app password.
        write revoke = "RevokeAppPassword"(RevokeAppPasswordRequest) -> RevokeAppPasswordResponse;
    }
    /// The cluster itself.
    cluster: Cluster = "ClusterService" {
        /// Its members and what each says of itself.
        read status = "GetStatus"(GetStatusRequest) -> ClusterStatus;
        /// Takes a node out for good.
        write remove = "RemoveNode"(RemoveNodeRequest) -> RemoveNodeResponse;
        /// Puts a node that has caught up in the place of another.
        write replace = "ReplaceNode"(ReplaceNodeRequest) -> ReplaceNodeResponse;
        /// Gives the lead to another node.
        write transfer_leader = "TransferLeader"(TransferLeaderRequest) -> TransferLeaderResponse;
        /// Sets log time back to the clocks.
        write reset_log_time = "ResetLogTime"(ResetLogTimeRequest) -> ResetLogTimeResponse;
    }
    /// The copy of the log elsewhere.
    archive: Archive = "ArchiveService" {
        /// How far it is behind, as the leader says.
        read status = "GetArchiveStatus"(GetArchiveStatusRequest) -> ArchiveStatus;
        /// What lies in it.
        read list = "ListArchive"(ListArchiveRequest) -> ListArchiveResponse;
        /// Removes what nothing kept needs any more.
        write prune = "PruneArchive"(PruneArchiveRequest) -> PruneArchiveResponse;
    }
    /// The cluster secret.
    secrets: Secrets = "SecretService" {
        /// How far the way from one secret to the next is gone.
        read status = "GetSecretStatus"(GetSecretStatusRequest) -> SecretStatus;
        /// Signs everybody out everywhere.
        write end_everything = "EndEverything"(EndEverythingRequest) -> EndEverythingResponse;
    }
}
