//! The API's services, typed: one line an RPC. A test compares this list with the API's descriptor.

use crate::{AdminClient, Error, call::Rpc, v1};

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
            pub struct $name(AdminClient);

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

        impl AdminClient {
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
    /// Users.
    users: Users = "UserService" {
        /// Creates a user.
        write create = "CreateUser"(CreateUserRequest) -> User;
        /// One user, by name or id.
        read get = "GetUser"(GetUserRequest) -> User;
        /// A page of users.
        read list = "ListUsers"(ListUsersRequest) -> ListUsersResponse;
        /// Changes the fields that are set. Disabling ends the user's sessions and grants.
        write update = "UpdateUser"(UpdateUserRequest) -> User;
        /// Sets a password; ends the user's sessions and grants unless the request keeps them.
        write set_password = "SetPassword"(SetPasswordRequest) -> SetPasswordResponse;
        /// Deletes a user with sessions and grants.
        write delete = "DeleteUser"(DeleteUserRequest) -> DeleteUserResponse;
        /// Ends a lock-out.
        write unlock = "UnlockUser"(UnlockUserRequest) -> UnlockUserResponse;
        /// Gives a user another username.
        write rename = "RenameUser"(RenameUserRequest) -> User;
    }
    /// Groups of users.
    groups: Groups = "GroupService" {
        /// Creates a group.
        write create = "CreateGroup"(CreateGroupRequest) -> Group;
        /// A page of groups.
        read list = "ListGroups"(ListGroupsRequest) -> ListGroupsResponse;
        /// Deletes a group; access rules that name it admit fewer users.
        write delete = "DeleteGroup"(DeleteGroupRequest) -> DeleteGroupResponse;
        /// Gives a group another name.
        write rename = "RenameGroup"(RenameGroupRequest) -> Group;
        /// Adds a user to a group.
        write add_member = "AddMember"(MemberRequest) -> MemberResponse;
        /// Removes a user from a group.
        write remove_member = "RemoveMember"(MemberRequest) -> MemberResponse;
    }
    /// Applications: hosts, launch URLs and access rules.
    applications: Applications = "ApplicationService" {
        /// Creates an application.
        write create = "CreateApplication"(CreateApplicationRequest) -> Application;
        /// One application, by slug or id.
        read get = "GetApplication"(GetApplicationRequest) -> Application;
        /// A page of applications.
        read list = "ListApplications"(ListApplicationsRequest) -> ListApplicationsResponse;
        /// Changes the fields that are set.
        write update = "UpdateApplication"(UpdateApplicationRequest) -> Application;
        /// Deletes an application that no client belongs to.
        write delete = "DeleteApplication"(DeleteApplicationRequest) -> DeleteApplicationResponse;
    }
    /// OIDC clients.
    clients: Clients = "ClientService" {
        /// Creates a client. Its secret is only in this response.
        write create = "CreateClient"(CreateClientRequest) -> CreateClientResponse;
        /// One client.
        read get = "GetClient"(GetClientRequest) -> Client;
        /// A page of clients.
        read list = "ListClients"(ListClientsRequest) -> ListClientsResponse;
        /// Changes the fields that are set. Disabling ends its grants.
        write update = "UpdateClient"(UpdateClientRequest) -> Client;
        /// Sets a new secret; the old one becomes invalid at once.
        write rotate_secret = "RotateClientSecret"(RotateClientSecretRequest) -> RotateClientSecretResponse;
        /// Deletes a client and its grants.
        write delete = "DeleteClient"(DeleteClientRequest) -> DeleteClientResponse;
        /// The consents of a user, for clients whose mode is `once`.
        read list_consents = "ListConsents"(ListConsentsRequest) -> ListConsentsResponse;
        /// Revokes a user's consent to a client, with every grant.
        write revoke_consent = "RevokeConsent"(RevokeConsentRequest) -> RevokeConsentResponse;
    }
    /// Other providers at which users may sign in.
    upstreams: Upstreams = "UpstreamService" {
        /// Adds a provider.
        write create = "CreateUpstream"(CreateUpstreamRequest) -> Upstream;
        /// One provider.
        read get = "GetUpstream"(GetUpstreamRequest) -> Upstream;
        /// A page of providers.
        read list = "ListUpstreams"(ListUpstreamsRequest) -> ListUpstreamsResponse;
        /// Changes the fields that are set. Disabling ends the sessions that it opened.
        write update = "UpdateUpstream"(UpdateUpstreamRequest) -> Upstream;
        /// Removes a provider with all its identities.
        write delete = "DeleteUpstream"(DeleteUpstreamRequest) -> DeleteUpstreamResponse;
        /// The identities of a user at providers.
        read list_identities = "ListIdentities"(ListIdentitiesRequest) -> ListIdentitiesResponse;
        /// Removes a link, and ends the sessions that it opened.
        write unlink_identity = "UnlinkIdentity"(UnlinkIdentityRequest) -> UnlinkIdentityResponse;
        /// Invites a user from the Atmosphere, to sign in once.
        write invite_identity = "InviteIdentity"(InviteIdentityRequest) -> Invitation;
        /// A page of open invitations.
        read list_invitations = "ListInvitations"(ListInvitationsRequest) -> ListInvitationsResponse;
        /// Revokes an invitation.
        write revoke_invitation = "RevokeInvitation"(RevokeInvitationRequest) -> RevokeInvitationResponse;
    }
    /// Policies: conditions for opening an application, beyond its access rule.
    policies: Policies = "PolicyService" {
        /// Sets an application's policy, or its candidate.
        write set = "SetPolicy"(SetPolicyRequest) -> ApplicationPolicy;
        /// An application's policy and candidate.
        read get = "GetPolicy"(GetPolicyRequest) -> ApplicationPolicy;
        /// Removes a policy or a candidate. Without a policy, the access rule is in force again.
        write remove = "RemovePolicy"(RemovePolicyRequest) -> RemovePolicyResponse;
        /// Makes the candidate the policy.
        write promote = "PromoteCandidate"(PromoteCandidateRequest) -> ApplicationPolicy;
        /// Tests which users a policy would admit, and why.
        read test = "TestPolicy"(TestPolicyRequest) -> TestPolicyResponse;
        /// Explains a decision of the node that answers.
        read explain = "ExplainDecision"(ExplainDecisionRequest) -> Decision;
        read decisions = "ListDecisions"(ListDecisionsRequest) -> ListDecisionsResponse;
        /// A report on a candidate, as observed by the node that answers.
        read shadow = "GetShadowReport"(GetShadowReportRequest) -> ShadowReport;
        /// Evaluates a candidate against the decisions that the node that answers recorded.
        read replay = "ReplayCandidate"(ReplayCandidateRequest) -> ReplayCandidateResponse;
    }
    /// Sessions of users.
    sessions: Sessions = "SessionService" {
        /// A page of live sessions, of one user or of all.
        read list = "ListSessions"(ListSessionsRequest) -> ListSessionsResponse;
        /// Ends a session. A session that has already ended gets the same response.
        write revoke = "RevokeSession"(RevokeSessionRequest) -> RevokeSessionResponse;
        /// Ends every session and grant of a user.
        write revoke_of_user = "RevokeUserSessions"(RevokeUserSessionsRequest) -> RevokeUserSessionsResponse;
        /// Back-channel logout notices that clients have not accepted yet. The leader knows the reasons.
        read notices = "ListNotices"(ListNoticesRequest) -> ListNoticesResponse;
    }
    /// Keys that tokens are signed with.
    keys: Keys = "KeyService" {
        /// A page of published keys.
        read list = "ListKeys"(ListKeysRequest) -> ListKeysResponse;
        /// Publishes the next key of an algorithm, and signs with it at once on request.
        write rotate = "RotateKey"(RotateKeyRequest) -> SigningKey;
        /// Removes a key that does not sign from publication.
        write retire = "RetireKey"(RetireKeyRequest) -> RetireKeyResponse;
    }
    /// Bearer tokens of this API.
    tokens: Tokens = "TokenService" {
        /// Creates a token. Its text is only in this response.
        write create = "CreateToken"(CreateTokenRequest) -> CreateTokenResponse;
        /// A page of tokens.
        read list = "ListTokens"(ListTokensRequest) -> ListTokensResponse;
        /// Revokes a token.
        write revoke = "RevokeToken"(RevokeTokenRequest) -> RevokeTokenResponse;
    }
    /// App passwords, for HTTP Basic at the check.
    app_passwords: AppPasswords = "AppPasswordService" {
        /// Creates an app password. Its text is only in this response.
        write create = "CreateAppPassword"(CreateAppPasswordRequest) -> CreateAppPasswordResponse;
        /// A page of app passwords, of one user or of all.
        read list = "ListAppPasswords"(ListAppPasswordsRequest) -> ListAppPasswordsResponse;
        /// Revokes an app password.
        write revoke = "RevokeAppPassword"(RevokeAppPasswordRequest) -> RevokeAppPasswordResponse;
    }
    /// The cluster itself.
    cluster: Cluster = "ClusterService" {
        /// Its members, and the status that each reports.
        read status = "GetStatus"(GetStatusRequest) -> ClusterStatus;
        /// Removes a node permanently.
        write remove = "RemoveNode"(RemoveNodeRequest) -> RemoveNodeResponse;
        /// Replaces a node by one that has caught up.
        write replace = "ReplaceNode"(ReplaceNodeRequest) -> ReplaceNodeResponse;
        /// Transfers leadership to another node.
        write transfer_leader = "TransferLeader"(TransferLeaderRequest) -> TransferLeaderResponse;
        /// Sets log time back to the clocks.
        write reset_log_time = "ResetLogTime"(ResetLogTimeRequest) -> ResetLogTimeResponse;
    }
    /// The archive: the copy of the log in other storage.
    archive: Archive = "ArchiveService" {
        /// The archive's lag, as reported by the leader.
        read status = "GetArchiveStatus"(GetArchiveStatusRequest) -> ArchiveStatus;
        /// Its contents.
        read list = "ListArchive"(ListArchiveRequest) -> ListArchiveResponse;
        /// Removes everything that no kept snapshot needs.
        write prune = "PruneArchive"(PruneArchiveRequest) -> PruneArchiveResponse;
    }
    /// The cluster secret.
    secrets: Secrets = "SecretService" {
        /// The progress of a change of the secret.
        read status = "GetSecretStatus"(GetSecretStatusRequest) -> SecretStatus;
        /// Signs out every user everywhere.
        write end_everything = "EndEverything"(EndEverythingRequest) -> EndEverythingResponse;
    }
}
