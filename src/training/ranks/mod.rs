//! Several processes that train one network together, called ranks: how they know of each other, what they say to
//! each other over TCP, what each takes of a step, and how what they found becomes one sum.
mod agree;
mod group;
mod launch;
mod meeting;
mod shares;
mod sum;
mod wire;

pub use agree::{Fact, agree};
pub use group::Ranks;
pub use launch::{Launch, Meeting, detect};
pub use meeting::meet;
pub(super) use shares::{Shares, Unit};
pub(super) use sum::{Form, Said, Sum, put, tensor};
