//! What ops have in common that apply one function to each element: `silu.rs` shows such an op written out.
//!
//! ```text
//! y  = f(x)
//! dx = dy f'
//! ```
//!
//! The slope `f'` is a function of x or, where that is cheaper, of y; then x need not be kept.
use super::parallel::{zip2, zip3};
use super::simd::Lane;

/// Such a function. Its file says the rest in the [list](unary) below its documentation.
pub(super) trait Unary {
    /// `f(x)`.
    fn y<T: Lane>(x: T) -> T;

    /// `dy f'`, at the x or the y that the op says its slope is a function of.
    fn slope<T: Lane>(at: T, dy: T) -> T;

    /// `f` of all elements.
    fn forward<T: Lane>(x: &[T], y: &mut [T]) {
        zip2(y, x, |y, &x| *y = Self::y(x));
    }

    /// The gradient of all elements.
    fn backward<T: Lane>(at: &[T], dy: &[T], dx: &mut [T]) {
        zip3(dx, at, dy, |dx, &at, &dy| *dx = Self::slope(at, dy));
    }
}

/// The op of a [`Unary`]: its entry on the tape, its struct, and the launches of its two kernels, the second of which
/// takes `x` or `y`.
macro_rules! unary {
    ($(#[$about:meta])* $name:ident: $op:ident, $forward:ident, $backward:ident of $at:ident) => {
        impl $crate::engine::tape::Tape {
            $(#[$about])*
            pub fn $name(
                &mut self,
                x: &$crate::engine::tape::Var,
            ) -> $crate::error::Result<$crate::engine::tape::Var> {
                self.apply($op, &[x])
            }
        }

        /// See the [module](self) for the formulas.
        #[derive(Debug)]
        pub struct $op;

        impl $crate::engine::tape::Op for $op {
            fn name(&self) -> &'static str {
                stringify!($name)
            }

            fn forward(
                &self,
                inputs: &[&$crate::engine::tensor::Tensor],
            ) -> $crate::error::Result<($crate::engine::tensor::Tensor, $crate::engine::tape::Saved)> {
                use $crate::engine::cuda::{Grid, kernels};
                let [x] = inputs else { unreachable!("{} takes one input", stringify!($name)) };
                let mut y = $crate::engine::tensor::Tensor::empty_as(x, x.shape())?;
                $crate::on_device!(x,
                    cpu::<T> => <$op as Unary>::forward::<T>(x.cpu()?, y.cpu_mut()?),
                    cuda(gpu) => kernels::$forward { x, y: &mut y, n: x.len() }
                        .launch(&gpu, Grid::packs(x.len(), x.dtype()))?
                );
                Ok((y, $crate::engine::tape::Saved::new()))
            }

            fn backward(
                &self,
                call: &$crate::engine::tape::Call,
                dy: &$crate::engine::tensor::Tensor,
            ) -> $crate::error::Result<Vec<Option<$crate::engine::tensor::Tensor>>> {
                use $crate::engine::cuda::{Grid, kernels};
                let $at = $crate::ops::unary::kept!($at, call);
                let mut dx = $crate::engine::tensor::Tensor::empty_as($at, $at.shape())?;
                $crate::on_device!($at,
                    cpu::<T> => <$op as Unary>::backward::<T>($at.cpu()?, dy.cpu()?, dx.cpu_mut()?),
                    cuda(gpu) => kernels::$backward { $at, dy, dx: &mut dx, n: $at.len() }
                        .launch(&gpu, Grid::packs($at.len(), $at.dtype()))?
                );
                Ok(vec![Some(dx)])
            }
        }
    };
}

/// The tensor of a call that a slope is a function of.
macro_rules! kept {
    (x, $call:ident) => {
        $call.inputs[0]
    };
    (y, $call:ident) => {
        $call.output
    };
}
pub(super) use {kept, unary};
