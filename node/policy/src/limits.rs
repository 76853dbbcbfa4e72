//! Every bound of a policy. Together they guarantee that the slowest policy that compiles decides within a few
//! milliseconds.

/// Most rows: more than an operator would read.
pub const MAX_ROWS: usize = 128;
/// Most conditions of one row.
pub const MAX_CONDITIONS: usize = 8;
/// Most values in one condition: networks, countries, users, groups.
pub const MAX_VALUES: usize = 256;
/// Most rules for paths that need no sign-in.
pub const MAX_PUBLIC: usize = 64;
/// Most extra headers: proxies limit all headers of a request together to 8 to 16 KiB.
pub const MAX_HEADERS: usize = 16;
/// Longest expression.
pub const MAX_EXPRESSION_BYTES: usize = 2_048;
/// Deepest nesting of brackets and of operators, checked before the parser runs: it recurses about ten frames a level.
pub const MAX_DEPTH: usize = 32;
/// Most nodes of one expression.
pub const MAX_NODES: usize = 512;
/// Longest list that an expression reads; a longer one is a fault. As many items as a user has groups.
pub const MAX_LIST: usize = 256;
/// Longest text that an expression reads (a path), or makes by joining; a longer one is a fault.
pub const MAX_TEXT_BYTES: usize = 8_192;
/// Longest name, address or method that an expression reads: the rules keep names shorter.
pub const MAX_NAME_BYTES: usize = 256;
/// Longest attribute that an expression reads.
pub const MAX_ATTRIBUTE_BYTES: usize = 1_024;
/// This many bytes of text are charged as one step.
pub const BYTES_PER_STEP: u64 = 256;
/// This many items of a list are charged as one step when it is read.
pub const ITEMS_PER_STEP: u64 = 4;
/// Worst case of all expressions of one policy together, in steps: about 20 ns each.
pub const MAX_COST: u64 = 200_000;
/// Longest header value that an expression may make.
pub const MAX_HEADER_VALUE_BYTES: usize = 1_024;
/// Longest path pattern.
pub const MAX_PATTERN_BYTES: usize = 512;
