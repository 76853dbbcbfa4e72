//! `SetPicture`: a user's picture (the `picture` claim, OIDC Core §5.1). A small JPEG that was encoded at the edge; the
//! original image never gets here. It ends with the user.

use std::sync::Arc;

use conclave_proto::{command::v1 as pb, state::v1 as rows};
use sha2::{Digest as _, Sha256};

use crate::{
    draft::Draft,
    ids::{PictureId, UserId},
    reply::{Refusal, Reply, done},
    snapshot::Row,
    state::State,
    text,
};

/// Longest picture: every node keeps all of them in memory.
pub const MAX_PICTURE_BYTES: usize = 16 * 1024;
/// The first bytes of every JPEG (ITU-T T.81 §B.1.1.3: SOI, and the first byte of the next marker).
const JPEG: [u8; 3] = [0xff, 0xd8, 0xff];
/// Longest name of the picture's source.
const MAX_SOURCE_BYTES: usize = 128;

/// A user's picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// The user.
    pub user: UserId,
    /// JPEG.
    pub jpeg: Vec<u8>,
    /// The name of the source that it was made from.
    pub source: String,
}

impl Picture {
    /// An id that reveals nothing about the user, and changes with the picture.
    pub fn id(&self) -> PictureId {
        let hash: [u8; 32] = Sha256::digest(&self.jpeg).into();
        let mut id = [0; 16];
        id.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        PictureId::new(id)
    }
}

pub(crate) fn set(draft: &mut Draft, command: &pb::SetPicture) -> Result<Reply, Refusal> {
    let user = draft.state.existing_user(UserId::parse(&command.user_id)?)?.id;
    if command.jpeg.is_empty() {
        draft.state.take_picture(user);
        return Ok(done());
    }
    if command.jpeg.len() > MAX_PICTURE_BYTES || !command.jpeg.starts_with(&JPEG) {
        return Err(Refusal::malformed(format!("a picture is a JPEG of at most {MAX_PICTURE_BYTES} bytes")));
    }
    let source = text::required("source", &command.source, MAX_SOURCE_BYTES)?;
    draft.state.put_picture(Picture { user, jpeg: command.jpeg.clone(), source });
    Ok(done())
}

impl State {
    /// The picture of this user, if there is one.
    pub fn picture_of(&self, user: UserId) -> Option<&Arc<Picture>> {
        self.pictures.get(&user)
    }

    /// The picture with this id, of any user.
    pub fn picture(&self, id: PictureId) -> Option<&Arc<Picture>> {
        let first = (id, UserId::new([0; 16]));
        let (found, user) = self.pictures_by_id.range(first..).next()?;
        if *found == id { self.pictures.get(user) } else { None }
    }

    pub(crate) fn put_picture(&mut self, picture: Picture) {
        self.take_picture(picture.user);
        self.pictures_by_id.insert((picture.id(), picture.user));
        self.pictures.insert(picture.user, Arc::new(picture));
    }

    pub(crate) fn take_picture(&mut self, user: UserId) {
        if let Some(picture) = self.pictures.remove(&user) {
            self.pictures_by_id.remove(&(picture.id(), user));
        }
    }
}

impl Row for Picture {
    const TABLE: u32 = 261;
    type Wire = rows::PictureRow;

    fn to_wire(&self) -> rows::PictureRow {
        rows::PictureRow { user_id: self.user.to_vec(), jpeg: self.jpeg.clone(), source: self.source.clone() }
    }

    fn from_wire(wire: rows::PictureRow) -> Result<Self, Refusal> {
        Ok(Self { user: UserId::parse(&wire.user_id)?, jpeg: wire.jpeg, source: wire.source })
    }

    fn put(self, state: &mut State) {
        state.put_picture(self);
    }
}
