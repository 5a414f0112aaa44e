//! A checkpoint that is asked for from outside while a run goes on, as by a signal.
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

static ASKED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Once this is set, the run in this process writes a checkpoint after its step and goes on.
pub fn flag() -> Arc<AtomicBool> {
    Arc::clone(ASKED.get_or_init(Arc::default))
}

/// Whether one was asked for since the last call.
pub(crate) fn take() -> bool {
    ASKED.get().is_some_and(|flag| flag.swap(false, Ordering::Relaxed))
}
