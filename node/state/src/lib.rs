#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply;
