//! Three real processes, as `conclave demo` starts them: behaviour across nodes, and after `kill -9`.

mod archive;
mod archive_restore;
mod atmosphere;
mod atmosphere_browser;
mod atmosphere_chaos;
mod atmosphere_https;
mod atmosphere_leader;
mod atmosphere_trace;
mod bad_input;
mod chromium;
mod clocks;
mod collector;
mod debian_parties;
mod debian_servers;
mod disaster;
mod examples;
mod foreign_parties;
mod onward_chain;
mod party;
mod proxies;
mod proxy_bounds;
mod refusing;
mod relying_party;
mod restore;
mod rotation;
mod runbooks;
mod secret_day;
mod spoofs;
mod world;

pub(crate) use world::field;
