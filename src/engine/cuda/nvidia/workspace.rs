//! Memory that a library works in.
use std::sync::{Arc, Mutex, PoisonError};

use super::context::Context;
use crate::error::Result;

/// One piece of device memory for all calls, which run one after the other. It grows; what was
/// outgrown stays, because recorded graphs may use it.
#[derive(Debug)]
pub(super) struct Workspace {
    context: Arc<Context>,
    pieces: Mutex<Vec<(u64, usize)>>,
}

impl Workspace {
    pub(super) fn new(context: &Arc<Context>) -> Self {
        Self { context: Arc::clone(context), pieces: Mutex::default() }
    }

    /// At least `bytes`; null for none.
    pub(super) fn get(&self, bytes: usize) -> Result<u64> {
        let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        match pieces.last() {
            _ if bytes == 0 => Ok(0),
            Some(&(at, size)) if size >= bytes => Ok(at),
            _ => {
                let at = self.context.allocate(bytes)?;
                pieces.push((at, bytes));
                Ok(at)
            }
        }
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        let pieces = self.pieces.get_mut().unwrap_or_else(PoisonError::into_inner);
        pieces.iter().for_each(|&(at, _)| self.context.free(at));
    }
}
