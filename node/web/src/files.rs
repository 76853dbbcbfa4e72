//! The built-in templates and assets, and their replacements in the operator's folder.

use std::io;
use std::path::Path;

/// The template that all others extend.
const LAYOUT: (&str, &str) = ("layout.html", include_str!("templates/layout.html"));

/// All templates by file name.
pub(super) const TEMPLATES: [(&str, &str); 14] = [
    LAYOUT,
    ("login.html", include_str!("templates/login.html")),
    ("atmosphere.html", include_str!("templates/atmosphere.html")),
    ("consent.html", include_str!("templates/consent.html")),
    ("logout.html", include_str!("templates/logout.html")),
    ("signed_out.html", include_str!("templates/signed_out.html")),
    ("form_post.html", include_str!("templates/form_post.html")),
    ("continue.html", include_str!("templates/continue.html")),
    ("device.html", include_str!("templates/device.html")),
    ("device_done.html", include_str!("templates/device_done.html")),
    ("recover.html", include_str!("templates/recover.html")),
    ("home.html", include_str!("templates/home.html")),
    ("forbidden.html", include_str!("templates/forbidden.html")),
    ("error.html", include_str!("templates/error.html")),
];

pub(super) const CSS: (&str, &str) = ("conclave.css", include_str!("assets/conclave.css"));
pub(super) const LOGO: (&str, &str) = ("logo.svg", include_str!("assets/logo.svg"));

/// Maximum length of a file in the operator's folder.
const MAX_LEN: u64 = 256 * 1024;

/// The operator's file of that name, if it exists and can be read.
pub(super) fn replacement(folder: Option<&Path>, name: &str) -> Option<String> {
    let path = folder?.join(name);
    match read(&path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "a replaced page cannot be read; the built-in one is used");
            None
        }
    }
}

fn read(path: &Path) -> io::Result<String> {
    if std::fs::metadata(path)?.len() > MAX_LEN {
        return Err(io::Error::other(format!("larger than {MAX_LEN} bytes")));
    }
    std::fs::read_to_string(path)
}
