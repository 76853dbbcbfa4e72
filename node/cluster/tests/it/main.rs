//! openraft's log storage over the store: openraft's own suite, crashes of a writing process, system calls.

#[cfg(test)]
mod adapter;
#[cfg(test)]
mod child;
#[cfg(test)]
mod kill;
#[cfg(test)]
mod strace;
#[cfg(test)]
mod suite;
