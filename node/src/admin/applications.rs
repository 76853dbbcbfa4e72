//! Applications: what people open, on which hosts, and who may.

use conclave_proto::{
    admin::v1::{self as pb, application_service_server::ApplicationService},
    command::v1::{
        Access, CheckRules, CreateApplication, DeleteApplication, Hosts, UpdateApplication, command::Body,
    },
};
use conclave_state::{State, application::Application, ids::ApplicationId};
use tonic::{Request, Response, Status};

use crate::auth::redirect_uri::RedirectUri;

use super::{Api, errors, names, request::Writing};

#[tonic::async_trait]
impl ApplicationService for Api {
    async fn create_application(
        &self,
        request: Request<pb::CreateApplicationRequest>,
    ) -> Result<Response<pb::Application>, Status> {
        let (mut writing, order) = self.write(request, "CreateApplication").await?;
        check_link(&order.launch_url)?;
        let id = ApplicationId::new(writing.id("application"));
        let body = CreateApplication {
            application_id: id.to_vec(),
            slug: order.slug,
            name: order.name,
            launch_url: order.launch_url,
            hosts: order.hosts,
            access: Some(writing.access(order.everyone, &order.groups).await?),
            serve_known_for_ms: order.serve_known_for_ms,
            check: order.check.map(check_rules),
        };
        let committed = writing.propose(Body::CreateApplication(body)).await?;
        let application = shown(&committed.state, id)?;
        writing.reply(&committed, application)
    }

    async fn get_application(
        &self,
        request: Request<pb::GetApplicationRequest>,
    ) -> Result<Response<pb::Application>, Status> {
        let (reading, wanted) = self.read(request).await?;
        let id = names::application(&reading.state, &wanted.application);
        let id = id.ok_or_else(|| errors::not_found("application", &wanted.application))?;
        reading.reply(shown(&reading.state, id)?)
    }

    async fn list_applications(
        &self,
        request: Request<pb::ListApplicationsRequest>,
    ) -> Result<Response<pb::ListApplicationsResponse>, Status> {
        let (reading, wanted) = self.read(request).await?;
        let listing = self.listing("applications", wanted.page)?;
        let after = listing.after(|bytes| ApplicationId::parse(bytes).ok())?;
        let rows = reading.state.applications_after(after);
        let rows = rows.map(|application| (application.id.to_vec(), message(&reading.state, application)));
        let (applications, next_page_token) = listing.page(rows);
        reading.reply(pb::ListApplicationsResponse { applications, next_page_token })
    }

    async fn update_application(
        &self,
        request: Request<pb::UpdateApplicationRequest>,
    ) -> Result<Response<pb::Application>, Status> {
        let (mut writing, order) = self.write(request, "UpdateApplication").await?;
        check_link(order.launch_url.as_deref().unwrap_or_default())?;
        let id = writing.application(&order.application).await?;
        let access = match order.access {
            Some(rule) => Some(writing.access(rule.everyone, &rule.groups).await?),
            None => None,
        };
        let body = UpdateApplication {
            application_id: id.to_vec(),
            name: order.name,
            launch_url: order.launch_url,
            hosts: order.hosts.map(|list| Hosts { hosts: list.hosts }),
            access,
            serve_known_for_ms: order.serve_known_for_ms,
            check: order.check.map(check_rules),
        };
        let committed = writing.propose(Body::UpdateApplication(body)).await?;
        let application = shown(&committed.state, id)?;
        writing.reply(&committed, application)
    }

    async fn delete_application(
        &self,
        request: Request<pb::DeleteApplicationRequest>,
    ) -> Result<Response<pb::DeleteApplicationResponse>, Status> {
        let (mut writing, order) = self.write(request, "DeleteApplication").await?;
        let application_id = writing.application(&order.application).await?.to_vec();
        let committed =
            writing.propose(Body::DeleteApplication(DeleteApplication { application_id })).await?;
        writing.reply(&committed, pb::DeleteApplicationResponse {})
    }
}

impl Writing {
    async fn access(&mut self, everyone: bool, groups: &[String]) -> Result<Access, Status> {
        Ok(Access { everyone, group_ids: self.groups(groups).await? })
    }
}

/// The portal makes a link of it: `javascript:` there would run as the visitor.
fn check_link(url: &str) -> Result<(), Status> {
    if url.is_empty() {
        return Ok(());
    }
    RedirectUri::parse_link(url).map(|_| ()).map_err(|error| errors::redirect_uri("launch_url", url, &error))
}

fn shown(state: &State, id: ApplicationId) -> Result<pb::Application, Status> {
    let found = state.application(id).map(|application| message(state, application));
    found.ok_or_else(|| errors::not_found("application", &id.to_string()))
}

fn message(state: &State, application: &Application) -> pb::Application {
    let groups = application.access.groups.iter().filter_map(|id| state.group(*id));
    pb::Application {
        id: application.id.to_string(),
        slug: application.slug.to_string(),
        name: application.name.clone(),
        launch_url: application.launch_url.clone(),
        hosts: application.hosts.iter().map(ToString::to_string).collect(),
        everyone: application.access.everyone,
        groups: groups.map(|group| group.name.to_string()).collect(),
        serve_known_for_ms: application.serve_known_for_ms,
        check: Some(pb::CheckRules {
            bearer: application.check.bearer,
            basic: application.check.basic,
            assertion: application.check.assertion,
        }),
    }
}

const fn check_rules(rules: pb::CheckRules) -> CheckRules {
    CheckRules { bearer: rules.bearer, basic: rules.basic, assertion: rules.assertion }
}
