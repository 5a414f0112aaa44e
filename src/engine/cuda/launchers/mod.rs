//! Writes the launchers: for each kernel a struct with a field for each of its parameters, which checks what it is
//! given and starts it. build.rs calls [`generate`](writer::generate); `kernels.rs` beside this folder includes and describes the result.
//!
//! The sources of the kernels are all it reads. What kernels a source exports, and with what parameters, follows from
//! its text with the macros expanded, so that any macro may declare some. What a pointer may not be is not in C's types:
//! one that may be null says so, `const T *bias /* or null */`.
mod declarations;
mod preprocessor;
pub(crate) mod writer;
