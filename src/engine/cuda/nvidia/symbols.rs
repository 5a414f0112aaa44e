//! Tables of the functions of a library that is looked for at run time.

/// Declares a table of C functions that return a status, and how it is filled from a library.
///
/// A status is a plain number: a library newer than our declarations may return codes that they do
/// not have, and an enum of an unknown value is undefined behaviour.
macro_rules! functions {
    ($(#[$doc:meta])* $table:ident:
     $($field:ident = $symbol:literal ($($argument:ty),* $(,)?);)*) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(super) struct $table {
            $(pub(super) $field: unsafe extern "C" fn($($argument),*) -> u32,)*
        }

        impl $table {
            /// Looks all of them up; the name of the first that is missing otherwise.
            ///
            /// # Safety
            /// The functions of `library` have these signatures, and it stays loaded for ever.
            unsafe fn of(library: &libloading::Library) -> std::result::Result<Self, &'static str> {
                Ok(Self {$(
                    // SAFETY: the signature is the one of the library's documentation.
                    $field: *unsafe {
                        library.get(concat!($symbol, "\0").as_bytes()).map_err(|_| $symbol)?
                    },
                )*})
            }
        }
    };
}
pub(super) use functions;
