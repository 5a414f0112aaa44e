//! stub
use crate::engine::tape::{Tape, Var};
use crate::error::{Error, Result};
impl Tape {
    /// stub
    pub fn group_norm(&mut self, _x: &Var, _w: &Var, _b: &Var, _groups: usize) -> Result<Var> {
        Err(Error::NotDifferentiable { op: "group_norm" })
    }
}
