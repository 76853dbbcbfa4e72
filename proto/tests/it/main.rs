//! The checked-in code matches the `.proto` files.

#[cfg(test)]
mod generated;
