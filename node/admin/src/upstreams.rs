//! Upstream providers at which users may sign in. Their addresses pass a parser before they enter a command. Their
//! secrets are sealed here, and no response contains them.

use conclave_proto::{
    admin::v1::{self as pb, upstream_service_server::UpstreamService},
    command::v1::{
        self as cmd, CreateUpstream, DeleteUpstream, InviteIdentity, RevokeInvitation, Scopes,
        UnlinkIdentity, UpdateUpstream, UpstreamAdmission, command::Body,
    },
};
use conclave_state::{
    State,
    ids::{GroupId, InvitationId},
    upstream::{AllowList, Invitation, LinkedIdentity, ProviderLocation, Upstream},
};
use tonic::{Request, Response, Status};
use url::Url;

use conclave_auth::upstream::ATMOSPHERE;

use super::{Api, errors, names, request::Writing};

/// The longest secret: those of providers are far shorter.
const MAX_SECRET_BYTES: usize = 1_024;
/// The scopes that are requested if none are named.
const DEFAULT_SCOPES: [&str; 3] = ["openid", "profile", "email"];
const ADMISSIONS: [(&str, UpstreamAdmission); 4] = [
    ("none", UpstreamAdmission::None),
    ("domains", UpstreamAdmission::Domains),
    ("any", UpstreamAdmission::Any),
    ("listed", UpstreamAdmission::Listed),
];

#[tonic::async_trait]
impl UpstreamService for Api {
    async fn create_upstream(
        &self,
        mut request: Request<pb::CreateUpstreamRequest>,
    ) -> Result<Response<pb::Upstream>, Status> {
        let secret = std::mem::take(&mut request.get_mut().client_secret);
        let (mut writing, message) = self.write(request, "CreateUpstream").await?;
        let name = message.name.clone();
        let wants_first = message.rule.as_ref().is_some_and(|rule| !rule.first_group.is_empty());
        let upstream = writing.new_upstream(message, &secret).await?;
        let body = Body::CreateUpstream(CreateUpstream { upstream: Some(upstream) });
        let committed = writing.propose(body).await?;
        let upstream = find_proto(self, &committed.state, &name)?;
        let first_url = writing.first_url(wants_first);
        writing.reply(&committed, pb::Upstream { first_url, ..upstream })
    }

    async fn get_upstream(
        &self,
        request: Request<pb::GetUpstreamRequest>,
    ) -> Result<Response<pb::Upstream>, Status> {
        let (reading, wanted) = self.read(request).await?;
        reading.reply(find_proto(self, &reading.state, &wanted.name)?)
    }

    async fn list_upstreams(
        &self,
        request: Request<pb::ListUpstreamsRequest>,
    ) -> Result<Response<pb::ListUpstreamsResponse>, Status> {
        let (reading, wanted) = self.read(request).await?;
        let listing = self.listing("upstreams", wanted.page)?;
        let after = listing.after(|bytes| String::from_utf8(bytes.to_vec()).ok())?;
        let rows = reading.state.upstreams_after(after.as_deref());
        let rows = rows
            .map(|upstream| (upstream.name.as_bytes().to_vec(), to_proto(self, &reading.state, upstream)));
        let (upstreams, next_page_token) = listing.page(rows);
        reading.reply(pb::ListUpstreamsResponse { upstreams, next_page_token })
    }

    async fn update_upstream(
        &self,
        mut request: Request<pb::UpdateUpstreamRequest>,
    ) -> Result<Response<pb::Upstream>, Status> {
        let secret = request.get_mut().client_secret.take();
        let (mut writing, message) = self.write(request, "UpdateUpstream").await?;
        let name = message.name.clone();
        let wants_first = message.rule.as_ref().is_some_and(|rule| !rule.first_group.is_empty());
        let sealed_secret = secret.map(|secret| writing.seal(&name, &secret)).transpose()?;
        let rule = match message.rule {
            Some(rule) => Some(writing.rule(rule).await?),
            None => None,
        };
        let body = UpdateUpstream {
            name: message.name,
            display_name: message.display_name,
            client_id: message.client_id,
            sealed_secret,
            scopes: message.scopes.map(|list| Scopes { scopes: list.scopes }),
            claims: message.claims.map(claims),
            rule,
            disabled: message.disabled,
        };
        let committed = writing.propose(Body::UpdateUpstream(body)).await?;
        let upstream = find_proto(self, &committed.state, &name)?;
        let first_url = writing.first_url(wants_first);
        writing.reply(&committed, pb::Upstream { first_url, ..upstream })
    }

    async fn delete_upstream(
        &self,
        request: Request<pb::DeleteUpstreamRequest>,
    ) -> Result<Response<pb::DeleteUpstreamResponse>, Status> {
        let (writing, message) = self.write(request, "DeleteUpstream").await?;
        let committed = writing.propose(Body::DeleteUpstream(DeleteUpstream { name: message.name })).await?;
        writing.reply(&committed, pb::DeleteUpstreamResponse {})
    }

    async fn list_identities(
        &self,
        request: Request<pb::ListIdentitiesRequest>,
    ) -> Result<Response<pb::ListIdentitiesResponse>, Status> {
        let (reading, wanted) = self.read(request).await?;
        let user = names::user(&reading.state, &wanted.user);
        let user = user.ok_or_else(|| errors::not_found("user", &wanted.user))?;
        let identities = reading.state.identities_of(user).map(|identity| pb::Identity {
            upstream: identity.upstream.to_string(),
            subject: identity.subject.to_string(),
            label: identity.label.clone(),
            linked_at_ms: identity.linked_at.0,
            admitted_by: identity.let_in.as_ref().map(|by| by.handle.to_string()).unwrap_or_default(),
            unconfirmed_since_ms: identity.doubt().map_or(0, |doubt| doubt.since.0),
            held_out: held_out(identity).to_owned(),
        });
        reading.reply(pb::ListIdentitiesResponse { identities: identities.collect() })
    }

    async fn unlink_identity(
        &self,
        request: Request<pb::UnlinkIdentityRequest>,
    ) -> Result<Response<pb::UnlinkIdentityResponse>, Status> {
        let (mut writing, message) = self.write(request, "UnlinkIdentity").await?;
        let user_id = writing.user(&message.user).await?.to_vec();
        let body = UnlinkIdentity { upstream: message.upstream, user_id, ..UnlinkIdentity::default() };
        let committed = writing.propose(Body::UnlinkIdentity(body)).await?;
        writing.reply(&committed, pb::UnlinkIdentityResponse {})
    }

    async fn invite_identity(
        &self,
        request: Request<pb::InviteIdentityRequest>,
    ) -> Result<Response<pb::Invitation>, Status> {
        let (mut writing, message) = self.write(request, "InviteIdentity").await?;
        let id = InvitationId::new(writing.id("invitation"));
        let body = InviteIdentity {
            upstream: message.upstream,
            invitation_id: id.to_vec(),
            who: message.who.trim_start_matches('@').to_owned(),
            group_ids: writing.groups(&message.groups).await?,
            ttl_ms: message.ttl_ms,
        };
        let committed = writing.propose(Body::InviteIdentity(body)).await?;
        let row = committed.state.invitation(id).map(|row| invitation(&committed.state, row));
        writing.reply(&committed, row.unwrap_or_default())
    }

    async fn list_invitations(
        &self,
        request: Request<pb::ListInvitationsRequest>,
    ) -> Result<Response<pb::ListInvitationsResponse>, Status> {
        let (reading, wanted) = self.read(request).await?;
        let listing = self.listing("invitations", wanted.page)?;
        let after = listing.after(|bytes| InvitationId::parse(bytes).ok())?;
        let now = self.auth.now(&reading.state);
        let open = reading.state.invitations_at(&wanted.upstream);
        let open =
            open.filter(|row| !row.expires_at.is_over_at(now) && after.is_none_or(|after| row.id > after));
        let (invitations, next_page_token) =
            listing.page(open.map(|row| (row.id.to_vec(), invitation(&reading.state, row))));
        reading.reply(pb::ListInvitationsResponse { invitations, next_page_token })
    }

    async fn revoke_invitation(
        &self,
        request: Request<pb::RevokeInvitationRequest>,
    ) -> Result<Response<pb::RevokeInvitationResponse>, Status> {
        let (writing, message) = self.write(request, "RevokeInvitation").await?;
        let id = InvitationId::from_hex(&message.id);
        let id = id.ok_or_else(|| errors::not_found("invitation", &message.id))?;
        let body = RevokeInvitation { upstream: message.upstream, invitation_id: id.to_vec() };
        let committed = writing.propose(Body::RevokeInvitation(body)).await?;
        writing.reply(&committed, pb::RevokeInvitationResponse {})
    }
}

/// The reason why a user cannot sign in at present.
fn held_out(identity: &LinkedIdentity) -> &'static str {
    match identity.doubt() {
        Some(doubt) if doubt.held_out && doubt.elsewhere => "the handle now belongs to another DID",
        Some(doubt) if doubt.held_out => "the handle has not been confirmed for too long",
        _ => "",
    }
}

fn invitation(state: &State, row: &Invitation) -> pb::Invitation {
    let groups = row.groups.iter().filter_map(|id| state.group(*id));
    pb::Invitation {
        id: row.id.to_string(),
        upstream: row.upstream.to_string(),
        who: row.who.to_string(),
        groups: groups.map(|group| group.name.to_string()).collect(),
        expires_at_ms: row.expires_at.0,
        created_at_ms: row.created_at.0,
    }
}

impl Writing {
    async fn new_upstream(
        &mut self,
        message: pb::CreateUpstreamRequest,
        secret: &str,
    ) -> Result<cmd::Upstream, Status> {
        for (field, address) in [
            ("issuer", &message.issuer),
            ("authorization_endpoint", &message.authorization_endpoint),
            ("token_endpoint", &message.token_endpoint),
            ("userinfo_endpoint", &message.userinfo_endpoint),
        ] {
            check_address(field, address)?;
        }
        let sealed_secret = self.seal(&message.name, secret)?;
        let scopes = if message.scopes.is_empty() && !message.issuer.is_empty() {
            DEFAULT_SCOPES.map(str::to_owned).to_vec()
        } else {
            message.scopes
        };
        Ok(cmd::Upstream {
            display_name: match (message.display_name.as_str(), message.atmosphere) {
                ("", true) => "Atmosphere".into(),
                ("", false) => message.name.clone(),
                (given, _) => given.to_owned(),
            },
            name: message.name,
            issuer: message.issuer,
            authorization_endpoint: message.authorization_endpoint,
            token_endpoint: message.token_endpoint,
            userinfo_endpoint: message.userinfo_endpoint,
            client_id: message.client_id,
            sealed_secret,
            scopes,
            claims: message.claims.map(claims),
            rule: Some(self.rule(message.rule.unwrap_or_default()).await?),
            disabled: false,
            atmosphere: message.atmosphere,
        })
    }

    fn seal(&self, name: &str, secret: &str) -> Result<Vec<u8>, Status> {
        if secret.len() > MAX_SECRET_BYTES {
            return Err(errors::invalid(format!("client_secret has more than {MAX_SECRET_BYTES} bytes")));
        }
        let sealed = self.api.auth.seal_upstream_secret(name, secret);
        sealed.map_err(|error| {
            tracing::error!(%error, "a client secret could not be sealed");
            Status::internal("the client secret could not be sealed")
        })
    }

    async fn rule(&mut self, rule: pb::UpstreamRule) -> Result<cmd::UpstreamRule, Status> {
        let admit = if rule.admit.is_empty() { "none" } else { &rule.admit };
        let found = ADMISSIONS.iter().find(|(word, _)| *word == admit);
        let (_, admission) =
            found.ok_or_else(|| errors::invalid("admit must be none, domains, listed or any"))?;
        Ok(cmd::UpstreamRule {
            admission: (*admission).into(),
            domains: rule.domains,
            group_ids: self.groups(&rule.groups).await?,
            dids: rule.dids,
            handles: rule.handles,
            mapped: self.mapped(rule.mapped).await?,
            ..self.first(&rule.first_group).await?
        })
    }

    async fn mapped(&mut self, mapped: Vec<pb::MappedGroups>) -> Result<Vec<cmd::MappedGroups>, Status> {
        let mut parsed = Vec::new();
        for pb::MappedGroups { who, groups } in mapped {
            parsed.push(cmd::MappedGroups { who, group_ids: self.groups(&groups).await? });
        }
        Ok(parsed)
    }

    /// The part of a rule that lets the first user in, by a token of this request.
    async fn first(&mut self, group: &str) -> Result<cmd::UpstreamRule, Status> {
        if group.is_empty() {
            return Ok(cmd::UpstreamRule::default());
        }
        let groups = self.groups(&[group.to_owned()]).await?;
        Ok(cmd::UpstreamRule {
            first_token_hash: self.secret().1,
            first_group_id: groups.into_iter().next().unwrap_or_default(),
            ..cmd::UpstreamRule::default()
        })
    }

    /// The URL at which the first user signs in; empty if this request asked for none.
    fn first_url(&self, asked: bool) -> String {
        let path = || format!("{ATMOSPHERE}?first={}", self.secret().0);
        if asked { self.api.auth.settings().public_url.join(&path()) } else { String::new() }
    }
}

/// Checks for https, or http. Plain http is allowed only to machines that `outbound.allow` names, which is checked when
/// the address is used. The address must not contain anything that hides its host.
fn check_address(field: &str, address: &str) -> Result<(), Status> {
    if address.is_empty() {
        return Ok(());
    }
    let url = Url::parse(address).ok().filter(|url| matches!(url.scheme(), "https" | "http"));
    let sound = url.filter(|url| {
        let is_bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        is_bare && url.host().is_some() && (field != "issuer" || url.query().is_none())
    });
    sound
        .map(drop)
        .ok_or_else(|| errors::invalid(format!("{field}: {address:?} is not a valid https address")))
}

fn claims(claims: pb::UpstreamClaims) -> cmd::UpstreamClaims {
    cmd::UpstreamClaims {
        subject: claims.subject,
        username: claims.username,
        email: claims.email,
        email_verified: claims.email_verified,
        name: claims.name,
    }
}

fn find_proto(api: &Api, state: &State, name: &str) -> Result<pb::Upstream, Status> {
    let found = state.upstream(name).map(|upstream| to_proto(api, state, upstream));
    found.ok_or_else(|| errors::not_found("upstream", name))
}

fn to_proto(api: &Api, state: &State, upstream: &Upstream) -> pb::Upstream {
    let (issuer, endpoints) = match &upstream.location {
        ProviderLocation::Issuer(issuer) => (issuer.clone(), ["", "", ""]),
        ProviderLocation::Atmosphere => (String::new(), ["", "", ""]),
        ProviderLocation::Endpoints { authorization, token, userinfo } => {
            (String::new(), [authorization.as_str(), token, userinfo])
        }
    };
    let [authorization_endpoint, token_endpoint, userinfo_endpoint] = endpoints.map(str::to_owned);
    let (names, rule) = (&upstream.claims, &upstream.rule);
    let or = |name: &String, usual: &str| if name.is_empty() { usual.to_owned() } else { name.clone() };
    let admit = ADMISSIONS.iter().find(|(_, admission)| *admission == rule.admission);
    let groups = rule.groups.iter().filter_map(|id| state.group(*id));
    pb::Upstream {
        name: upstream.name.to_string(),
        display_name: upstream.display_name.clone(),
        issuer,
        authorization_endpoint,
        token_endpoint,
        userinfo_endpoint,
        client_id: upstream.client_id.clone(),
        has_client_secret: !upstream.sealed_secret.is_empty(),
        scopes: upstream.scopes.clone(),
        claims: Some(pb::UpstreamClaims {
            subject: or(&names.subject, "sub"),
            username: or(&names.username, "preferred_username"),
            email: or(&names.email, "email"),
            email_verified: or(&names.email_verified, "email_verified"),
            name: or(&names.name, "name"),
        }),
        rule: Some(pb::UpstreamRule {
            admit: admit.map_or("none", |(word, _)| word).to_owned(),
            domains: rule.domains.iter().map(ToString::to_string).collect(),
            groups: groups.map(|group| group.name.to_string()).collect(),
            ..listed(state, &rule.listed)
        }),
        disabled: upstream.disabled,
        redirect_uri: if upstream.is_atmosphere() {
            String::new()
        } else {
            api.auth.upstream_redirect_uri(&upstream.name)
        },
        atmosphere: upstream.is_atmosphere(),
        first_url: String::new(),
        identity_count: u64::try_from(state.identities_at(&upstream.name).count()).unwrap_or(u64::MAX),
    }
}

/// The parts of Atmosphere's rule that other rules lack.
fn listed(state: &State, listed: &AllowList) -> pb::UpstreamRule {
    let name = |id: GroupId| state.group(id).map(|group| group.name.to_string());
    let (dids, handles): (Vec<_>, Vec<_>) =
        listed.who.iter().map(ToString::to_string).partition(|who| who.starts_with("did:"));
    let mapped = listed.mapped.iter().map(|(who, groups)| pb::MappedGroups {
        who: who.to_string(),
        groups: groups.iter().copied().filter_map(name).collect(),
    });
    let first = listed.first.as_ref().and_then(|(_, group)| group.and_then(name));
    pb::UpstreamRule {
        dids,
        handles,
        mapped: mapped.collect(),
        first_group: first.unwrap_or_default(),
        ..pb::UpstreamRule::default()
    }
}
