//! The one integration binary of the node: a module per room.

// `cfg(test)` is always true here; it is what tells clippy that helpers outside of `#[test]` are tests too.
#[cfg(test)]
mod admin;
#[cfg(test)]
mod archive;
#[cfg(test)]
mod auth;
#[cfg(test)]
mod cluster;
#[cfg(test)]
mod dependencies;
#[cfg(test)]
mod drill;
#[cfg(test)]
mod processes;
#[cfg(test)]
mod slices;
