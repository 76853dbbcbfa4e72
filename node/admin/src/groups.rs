//! Groups of users, and their members.

use conclave_proto::{
    admin::v1::{self as pb, group_service_server::GroupService},
    command::v1::{AddGroupMember, CreateGroup, DeleteGroup, RemoveGroupMember, RenameGroup, command::Body},
};
use conclave_state::{State, group::Group, ids::GroupId};
use tonic::{Request, Response, Status};

use super::{Api, errors};

#[tonic::async_trait]
impl GroupService for Api {
    async fn create_group(
        &self,
        request: Request<pb::CreateGroupRequest>,
    ) -> Result<Response<pb::Group>, Status> {
        let (writing, message) = self.write(request, "CreateGroup").await?;
        let id = GroupId::new(writing.id("group"));
        let body =
            CreateGroup { group_id: id.to_vec(), name: message.name, description: message.description };
        let committed = writing.propose(Body::CreateGroup(body)).await?;
        let group = committed.state.group(id).ok_or_else(|| errors::not_found("group", &id.to_string()))?;
        let group = to_proto(&committed.state, group);
        writing.reply(&committed, group)
    }

    async fn list_groups(
        &self,
        request: Request<pb::ListGroupsRequest>,
    ) -> Result<Response<pb::ListGroupsResponse>, Status> {
        let (reading, wanted) = self.read(request).await?;
        let listing = self.listing("groups", wanted.page)?;
        let after = listing.after(|bytes| GroupId::parse(bytes).ok())?;
        let rows = reading
            .state
            .groups_after(after)
            .map(|group| (group.id.to_vec(), to_proto(&reading.state, group)));
        let (groups, next_page_token) = listing.page(rows);
        reading.reply(pb::ListGroupsResponse { groups, next_page_token })
    }

    async fn delete_group(
        &self,
        request: Request<pb::DeleteGroupRequest>,
    ) -> Result<Response<pb::DeleteGroupResponse>, Status> {
        let (mut writing, message) = self.write(request, "DeleteGroup").await?;
        let id = writing.group(&message.group).await?;
        let committed = writing.propose(Body::DeleteGroup(DeleteGroup { group_id: id.to_vec() })).await?;
        writing.reply(&committed, pb::DeleteGroupResponse {})
    }

    async fn rename_group(
        &self,
        request: Request<pb::RenameGroupRequest>,
    ) -> Result<Response<pb::Group>, Status> {
        let (mut writing, message) = self.write(request, "RenameGroup").await?;
        let id = writing.group(&message.group).await?;
        writing.can_rename()?;
        let body = RenameGroup { group_id: id.to_vec(), name: message.name, force: message.force };
        let committed = writing.propose(Body::RenameGroup(body)).await?;
        let group = committed.state.group(id).ok_or_else(|| errors::not_found("group", &id.to_string()))?;
        let group = to_proto(&committed.state, group);
        writing.reply(&committed, group)
    }

    async fn add_member(
        &self,
        request: Request<pb::MemberRequest>,
    ) -> Result<Response<pb::MemberResponse>, Status> {
        let (mut writing, message) = self.write(request, "AddMember").await?;
        let group_id = writing.group(&message.group).await?.to_vec();
        let user_id = writing.user(&message.user).await?.to_vec();
        let committed = writing.propose(Body::AddGroupMember(AddGroupMember { group_id, user_id })).await?;
        writing.reply(&committed, pb::MemberResponse {})
    }

    async fn remove_member(
        &self,
        request: Request<pb::MemberRequest>,
    ) -> Result<Response<pb::MemberResponse>, Status> {
        let (mut writing, message) = self.write(request, "RemoveMember").await?;
        let group_id = writing.group(&message.group).await?.to_vec();
        let user_id = writing.user(&message.user).await?.to_vec();
        let committed =
            writing.propose(Body::RemoveGroupMember(RemoveGroupMember { group_id, user_id })).await?;
        writing.reply(&committed, pb::MemberResponse {})
    }
}

fn to_proto(state: &State, group: &Group) -> pb::Group {
    pb::Group {
        id: group.id.to_string(),
        name: group.name.to_string(),
        description: group.description.clone(),
        member_count: state.members_of(group.id).count() as u64,
    }
}
