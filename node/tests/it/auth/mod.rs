//! Keys and secrets over time, on a node of their own.

mod keys;
mod rotation;
mod secrets;
