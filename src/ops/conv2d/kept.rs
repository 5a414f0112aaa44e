//! Transformed weights that are kept from convolution to convolution.
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::Dims;
use super::instructions::Kernels;
use super::packed::{Packed, pack};
use crate::engine::parameter::Parameter;
use crate::engine::tensor::Tensor;

struct Entry {
    /// Held, so that no other tensor lies where it does, and nobody changes it.
    w: Arc<Tensor>,
    packed: Option<Rc<Packed>>,
}

thread_local! {
    /// Of convolutions that this thread starts.
    static KEPT: RefCell<Option<Vec<Entry>>> = const { RefCell::new(None) };
}

/// See [`keep_weights`](super::keep_weights).
pub(super) fn keep_weights<R>(body: impl FnOnce() -> R) -> R {
    struct Before(Option<Vec<Entry>>);
    impl Drop for Before {
        fn drop(&mut self) {
            KEPT.set(self.0.take());
        }
    }
    let _before = Before(KEPT.replace(Some(Vec::new())));
    body()
}

/// See [`share_weights`](super::share_weights).
pub(super) fn share(parameter: &Parameter) {
    KEPT.with_borrow_mut(|kept| {
        let Some(kept) = kept else { return };
        let w = parameter.value();
        if !kept.iter().any(|entry| Arc::ptr_eq(&entry.w, &w)) {
            kept.push(Entry { w, packed: None });
        }
    });
}

/// [`pack`], not flipped, or what is kept of it.
pub(super) fn packed(k: &Kernels, d: &Dims, w: &[f32]) -> Rc<Packed> {
    let new = || Rc::new(pack(k, d, w, false));
    KEPT.with_borrow_mut(|kept| {
        let same =
            |entry: &&mut Entry| entry.w.cpu::<f32>().is_ok_and(|held| std::ptr::eq(held, w));
        match kept.as_mut().and_then(|kept| kept.iter_mut().find(same)) {
            Some(entry) => Rc::clone(entry.packed.get_or_insert_with(new)),
            None => new(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::fast::chosen;
    use super::super::tuned;
    use super::*;
    use crate::engine::parameter::Layout;

    fn parameter(fill: f32) -> Parameter {
        let w = Tensor::from_vec(vec![fill; 17 * 9 * 20], &[17, 3, 3, 20]);
        Parameter::new("w", Layout::Conv, w)
    }

    #[test]
    fn shared_weights_are_transformed_once_until_they_change() {
        let Some(k) = chosen() else { return };
        let (pad, stride) = (1, 1);
        let d = Dims { batch: 1, height: 9, width: 9, ci: 20, co: 17, kernel: 3, stride, pad };
        let of = |p: &Parameter| packed(k, &d, p.value().cpu().unwrap());
        let (one, other) = (parameter(1.0), parameter(2.0));
        share(&one);
        assert!(!Rc::ptr_eq(&of(&one), &of(&one)), "kept for nobody");
        keep_weights(|| {
            share(&one);
            share(&one);
            let first = of(&one);
            assert!(Rc::ptr_eq(&first, &of(&one)));
            assert_eq!(size_of_val(&first.u[..]), tuned::kept_bytes(20, 17));
            assert!(!Rc::ptr_eq(&of(&other), &of(&other)), "nobody shares these");
            // Whoever else held the old value, what comes in its place is another.
            one.set(Tensor::from_vec(vec![3.0; 17 * 9 * 20], &[17, 3, 3, 20]));
            share(&one);
            assert_eq!(of(&one).u[..], pack(k, &d, &[3.0; 17 * 9 * 20], false).u[..]);
            assert!(!Rc::ptr_eq(&first, &of(&one)));
        });
        assert!(!Rc::ptr_eq(&of(&one), &of(&one)), "kept after the end");
    }
}
