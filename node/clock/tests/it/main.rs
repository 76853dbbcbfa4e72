//! The cluster clock under clocks that are wrong.

#[cfg(test)]
mod faults;
