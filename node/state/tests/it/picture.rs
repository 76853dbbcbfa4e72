//! Pictures of users.

use conclave_proto::command::v1::{self as pb, command::Body};
use conclave_state::{
    Reason, State,
    ids::{PictureId, UserId},
    picture::MAX_PICTURE_BYTES,
};

use crate::world::*;

fn person(n: u8) -> UserId {
    UserId::parse(&user(n)).unwrap()
}

fn shown(state: &State, n: u8) -> Option<PictureId> {
    state.picture_of(person(n)).map(|picture| picture.id())
}

fn two() -> World {
    let mut world = World::seeded();
    world.ok(create_user(20, &[]));
    world.ok(create_user(21, &[]));
    world.ok(set_picture(20, 1));
    world.ok(set_picture(21, 1));
    world
}

#[test]
fn a_picture_is_found_by_its_name_while_anybody_has_it() {
    let mut world = two();
    let name = shown(&world.state, 20).unwrap();
    assert_eq!(shown(&world.state, 21), Some(name), "the same picture has the same name");
    world.ok(set_picture(20, 2));
    assert_ne!(shown(&world.state, 20), Some(name));
    assert_eq!(world.state.picture(name).unwrap().jpeg, jpeg(1), "another user still has it");
    world.ok(Body::DeleteUser(pb::DeleteUser { user_id: user(21) }));
    assert!(world.state.picture(name).is_none(), "it ends with the user");
    world.ok(Body::SetPicture(pb::SetPicture { user_id: user(20), ..Default::default() }));
    assert_eq!(shown(&world.state, 20), None);
    assert_eq!(world.state.picture(PictureId::new([0xff; 16])), None);
}

#[test]
fn what_is_no_small_jpeg_of_somebody_is_refused() {
    let mut world = two();
    let command = |jpeg: Vec<u8>, source: &str| {
        Body::SetPicture(pb::SetPicture { user_id: user(20), jpeg, source: source.into() })
    };
    let mut long = jpeg(1);
    long.resize(MAX_PICTURE_BYTES, 0);
    world.ok(command(long.clone(), "at most"));
    long.push(0);
    for (jpeg, source) in [(long, "s"), (b"<svg/>".to_vec(), "s"), (b"\x89PNG".to_vec(), "s"), (jpeg(1), "")]
    {
        assert_eq!(world.refused(command(jpeg, source)), Reason::Malformed, "{source}");
    }
    assert_eq!(world.refused(set_picture(99, 1)), Reason::UserUnknown);
}

#[test]
fn a_restore_brings_the_pictures_of_its_people_back() {
    let mut world = two();
    let (older, name) = (world.state.clone(), shown(&world.state, 20).unwrap());
    world.ok(Body::DeleteUser(pb::DeleteUser { user_id: user(20) }));
    world.ok(set_picture(21, 3));
    let next =
        conclave_state::restore::restored(&older, &world.state, &crate::restore::founding(&world.state));
    assert_eq!((shown(&next, 20), shown(&next, 21)), (Some(name), Some(name)));
    assert!(next.picture(name).is_some());
}
