//! The address of a user's picture: a path that changes with the picture and does not reveal the user.

use conclave_state::ids::PictureId;

const SUFFIX: &str = ".jpg";

/// The path of this picture.
pub fn path(id: PictureId) -> String {
    format!("/picture/{id}{SUFFIX}")
}

/// The id in the last segment of such a path.
pub fn named(text: &str) -> Option<PictureId> {
    PictureId::from_hex(text.strip_suffix(SUFFIX)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_one_picture() {
        let id = PictureId::new([0xab; 16]);
        assert_eq!(named(path(id).strip_prefix("/picture/").unwrap()), Some(id));
        for other in ["", ".jpg", "abab.jpg", &format!("{id}"), &format!("{id}.png")] {
            assert_eq!(named(other), None, "{other}");
        }
    }
}
