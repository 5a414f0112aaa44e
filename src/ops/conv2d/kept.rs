//! Transformed weights that are kept from convolution to convolution.
#[cfg(target_arch = "x86_64")]
pub(super) use fast::packed;

use crate::engine::parameter::Parameter;

/// Runs `body`, in which this thread's 3x3 convolutions on the CPU transform [shared](share_weights) weights once, and
/// keep [so much](kept_bytes) of each until the end.
pub fn keep_weights<R>(body: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    return fast::keep(body);
    #[cfg(not(target_arch = "x86_64"))]
    body()
}

/// Says that convolutions with the weights of `parameter` come again, in [`keep_weights`].
pub fn share_weights(parameter: &Parameter) {
    #[cfg(target_arch = "x86_64")]
    fast::share(parameter);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = parameter;
}

/// Bytes that [`keep_weights`] keeps of weights `[co, 3, 3, ci]`, at most.
pub const fn kept_bytes(ci: usize, co: usize) -> usize {
    // Channels fill blocks.
    const BLOCK: usize = 16;
    size_of::<f32>() * 36 * ci.next_multiple_of(BLOCK) * co.next_multiple_of(BLOCK)
}

#[cfg(target_arch = "x86_64")]
mod fast {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::sync::Arc;

    use crate::engine::parameter::Parameter;
    use crate::engine::tensor::Tensor;
    use crate::ops::conv2d::instructions::Kernels;
    use crate::ops::conv2d::op::Dims;
    use crate::ops::conv2d::packed::{Packed, pack};

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
    pub(super) fn keep<R>(body: impl FnOnce() -> R) -> R {
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
    pub(in crate::ops::conv2d) fn packed(k: &Kernels, d: &Dims, w: &[f32]) -> Rc<Packed> {
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
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::engine::parameter::Layout;
    use crate::engine::tensor::Tensor;
    use crate::ops::conv2d::fast::chosen;
    use crate::ops::conv2d::op::Dims;
    use crate::ops::conv2d::packed::pack;

    fn weights(fill: f32) -> Tensor {
        Tensor::from_vec(vec![fill; 17 * 9 * 20], &[17, 3, 3, 20])
    }

    fn parameter(fill: f32) -> Parameter {
        Parameter::new("w", Layout::Conv, weights(fill))
    }

    #[test]
    fn shared_weights_are_transformed_once_until_they_change() {
        let Some(k) = chosen() else { return };
        let (pad, stride) = (1, 1);
        let d = Dims { batch: 1, height: 9, width: 9, ci: 20, co: 17, kernel: 3, stride, pad };
        let of = |p: &Parameter| packed(k, &d, p.value().cpu().unwrap());
        let (one, other) = (parameter(1.0), parameter(2.0));
        share_weights(&one);
        assert!(!Rc::ptr_eq(&of(&one), &of(&one)), "kept for nobody");
        keep_weights(|| {
            share_weights(&one);
            share_weights(&one);
            let first = of(&one);
            assert!(Rc::ptr_eq(&first, &of(&one)));
            assert_eq!(size_of_val(&first.u[..]), kept_bytes(20, 17));
            assert!(!Rc::ptr_eq(&of(&other), &of(&other)), "nobody shares these");
            // Whoever else held the old value, what comes in its place is another.
            one.set(weights(3.0));
            share_weights(&one);
            assert_eq!(of(&one).u[..], pack(k, &d, &[3.0; 17 * 9 * 20], false).u[..]);
            assert!(!Rc::ptr_eq(&first, &of(&one)));
        });
        assert!(!Rc::ptr_eq(&of(&one), &of(&one)), "kept after the end");
    }
}
