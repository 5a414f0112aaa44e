//! A panic in the code of others becomes an error of the file that caused it.
use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    static SHIELDED: Cell<bool> = const { Cell::new(false) };
}

/// What `work` returns, or what it panicked with; nothing is printed. For calls of decoders, which leave
/// nothing behind that is used again.
///
/// # Errors
/// The message of a panic.
pub fn shielded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !SHIELDED.get() {
                usual(info);
            }
        }));
    });
    let outer = SHIELDED.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    SHIELDED.set(outer);
    result.map_err(|payload| message(&*payload))
}

/// As [`shielded`], for a whole program: the usual message, with the place of the panic, is kept.
///
/// # Errors
/// The message of a panic.
pub fn located<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(|payload| message(&*payload))
}

/// What a panic was thrown with.
fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_message() {
        assert_eq!(shielded(|| 5), Ok(5));
        let index = std::hint::black_box(3);
        assert!(shielded(|| [1, 2][index]).unwrap_err().contains("index"));
        assert_eq!(shielded(|| shielded(|| panic!("inner")).unwrap_err()), Ok("inner".to_owned()));
        assert!(!SHIELDED.get());
    }
}
