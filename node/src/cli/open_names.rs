//! Patterns of handles that let the world in: below some domains everybody gets a name for nothing.

use std::io::Write as _;

/// Where that is so by their own word: account servers that anybody may join, and bridges from open networks. Not
/// complete, and it need not be: it is a warning.
const OPEN: [&str; 8] = [
    "bsky.social",
    "bsky.team",
    "brid.gy",
    "ap.brid.gy",
    "web.brid.gy",
    "blacksky.app",
    "eurosky.social",
    "northsky.social",
];

/// Says it on standard error, for each pattern that does.
pub fn warn(handles: &[String]) {
    for handle in handles.iter().filter(|handle| is_open(handle)) {
        // A closed terminal hears no warning.
        let _ = writeln!(
            std::io::stderr(),
            "conclave: warning: {handle} lets in everybody who takes a name there, which costs nothing; name single handles or DIDs, or a domain of your own"
        );
    }
}

fn is_open(pattern: &str) -> bool {
    let Some(domain) = pattern.strip_prefix("*.").map(str::to_ascii_lowercase) else { return false };
    // Whole registries, and what is known to be open.
    !domain.contains('.') || OPEN.contains(&domain.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_namespaces_are_known_and_others_left_alone() {
        for open in ["*.bsky.social", "*.BSKY.social", "*.com", "*.ap.brid.gy"] {
            assert!(is_open(open), "{open}");
        }
        for own in ["*.example.com", "alice.bsky.social", "*.corp.bsky.social", "bsky.social", "*"] {
            assert!(!is_open(own), "{own}");
        }
    }
}
