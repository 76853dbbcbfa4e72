//! The checked-in code is what the `.proto` files say.

#[cfg(test)]
mod generated;
