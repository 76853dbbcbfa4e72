//! The rules, from the outside: commands in, replies and digests out.

#[cfg(test)]
mod atmosphere;
#[cfg(test)]
mod check;
#[cfg(test)]
mod clock;
#[cfg(test)]
mod corpus;
#[cfg(test)]
mod described;
#[cfg(test)]
mod exceptions;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod names;
#[cfg(test)]
mod picture;
#[cfg(test)]
mod policy;
#[cfg(test)]
mod requests;
#[cfg(test)]
mod restore;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod stories;
mod token_side;
#[cfg(test)]
mod upstream;
#[cfg(test)]
mod world;
