//! Handle patterns that admit any visitor: below some domains anyone can get a name at no cost.

use std::io::Write as _;

/// Domains that state this themselves: account servers with open registration, and bridges from open networks. The list
/// is not complete, and need not be: it only causes a warning.
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

/// Prints a warning to standard error for each such pattern.
pub(super) fn warn(handles: &[String]) {
    for handle in handles.iter().filter(|handle| is_open(handle)) {
        // If standard error is closed, the warning is lost.
        let _ = writeln!(
            std::io::stderr(),
            "conclave: warning: {handle} admits anyone who gets a name there, at no cost; use single handles or DIDs, or a domain of your own"
        );
    }
}

fn is_open(pattern: &str) -> bool {
    let Some(domain) = pattern.strip_prefix("*.").map(str::to_ascii_lowercase) else { return false };
    // Whole registries, and domains that are known to be open.
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
