//! The one error type of the crate: who failed, what was wanted, what came, and what to do.
use std::fmt;

/// Everything that can go wrong, split by who can act on it; each kind has its exit code.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// `op` was given inputs whose shapes do not fit together.
    Shape {
        /// The op that refused.
        op: &'static str,
        /// What it needs, in words.
        expected: String,
        /// The shape it was given.
        got: Vec<usize>,
    },
    /// `op` has no implementation for this device, element type or variant.
    Unsupported {
        /// The op that refused.
        op: &'static str,
        /// What it cannot do.
        what: String,
    },
    /// A kernel was given an argument that it cannot take.
    Argument {
        /// The kernel.
        op: &'static str,
        /// Which argument, and what is wrong with it.
        what: String,
    },
    /// A gradient was asked of an op that has none.
    NotDifferentiable {
        /// The op that refused.
        op: &'static str,
    },
    /// The gradient of a gradient was asked of an op whose gradient is not made of ops.
    NotTwiceDifferentiable {
        /// The op that refused.
        op: &'static str,
    },
    /// An input or a run failed (exit code 1).
    Failed(Report),
    /// The command line or a configuration is wrong; nothing was done (exit code 2).
    Usage(Report),
    /// A model is missing, unsupported or damaged (exit code 3).
    Model(Report),
    /// The requested device cannot be used (exit code 4).
    Device(Report),
    /// The work does not fit in memory even at the smallest tile (exit code 5).
    Memory(Report),
    /// A check said no, for example a training loss that is not finite (exit code 6).
    Check(Report),
    /// A signal asked to stop; what is worth keeping was saved (exit code 128 + signal).
    Interrupted {
        /// The signal's number: 2 for Ctrl-C, 15 for a termination request.
        signal: i32,
        /// What was saved, or that nothing was written.
        what: String,
    },
}

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What failed, why, and what to do about it: the three lines a user reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What could not be done; lower case, names the file.
    pub what: String,
    /// Why, with numbers.
    pub cause: String,
    /// A command or change that helps; may be empty.
    pub help: String,
    /// A word for programs that tells the cause; where it is empty, that of the kind of error stands for it.
    pub code: &'static str,
}

impl Report {
    /// A report of `what` failed and its `cause`; add advice with [`help`](Self::help).
    pub fn new(what: impl Into<String>, cause: impl fmt::Display) -> Self {
        Self { what: what.into(), cause: cause.to_string(), help: String::new(), code: "" }
    }

    /// The same report with the line that says what to do.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }

    /// The same report with the word that programs know its cause by.
    pub fn code(mut self, code: &'static str) -> Self {
        self.code = code;
        self
    }
}

/// The code of what computed numbers that are none.
pub const NOT_FINITE: &str = "not_finite";

impl Error {
    /// A shape error of `op`.
    pub fn shape(op: &'static str, expected: impl Into<String>, got: &[usize]) -> Self {
        Self::Shape { op, expected: expected.into(), got: got.to_vec() }
    }

    /// The process exit code that stands for this error (documented under `srk --help`).
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Shape { .. } | Self::Unsupported { .. } | Self::Argument { .. } => 1,
            Self::NotDifferentiable { .. } | Self::NotTwiceDifferentiable { .. } => 1,
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Model(_) => 3,
            Self::Device(_) => 4,
            Self::Memory(_) => 5,
            Self::Check(_) => 6,
            Self::Interrupted { signal, .. } => u8::try_from(128 + signal).unwrap_or(1),
        }
    }
}

impl Error {
    /// What failed, why and what to do, where that is told apart.
    pub fn report(&self) -> Option<&Report> {
        match self {
            Self::Failed(r) | Self::Usage(r) | Self::Model(r) => Some(r),
            Self::Device(r) | Self::Memory(r) | Self::Check(r) => Some(r),
            _ => None,
        }
    }

    /// The word by which programs know the cause (docs/scripting.md).
    pub fn code(&self) -> &'static str {
        let kind = match self {
            Self::Shape { .. } | Self::Unsupported { .. } | Self::Argument { .. } => "internal",
            Self::NotDifferentiable { .. } | Self::NotTwiceDifferentiable { .. } => "internal",
            Self::Failed(_) => "failed",
            Self::Usage(_) => "usage",
            Self::Model(_) => "model",
            Self::Device(_) => "device",
            Self::Memory(_) => "memory",
            Self::Check(_) => "check",
            Self::Interrupted { .. } => "interrupted",
        };
        self.report().map(|report| report.code).filter(|code| !code.is_empty()).unwrap_or(kind)
    }
}

impl fmt::Display for Error {
    /// Up to three lines: what failed, `cause: …`, `help: …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape { op, expected, got } => {
                write!(f, "{op}: expected {expected}, got shape {got:?}")
            }
            Self::Unsupported { op, what } => write!(f, "{op}: no implementation for {what}"),
            Self::Argument { op, what } => write!(f, "{op}: {what}"),
            Self::NotDifferentiable { op } => write!(f, "{op}: has no gradient"),
            Self::NotTwiceDifferentiable { op } => {
                write!(f, "{op}: not twice differentiable: its gradient has no gradient")
            }
            Self::Failed(r)
            | Self::Usage(r)
            | Self::Model(r)
            | Self::Device(r)
            | Self::Memory(r)
            | Self::Check(r) => r.fmt(f),
            Self::Interrupted { what, .. } => write!(f, "interrupted: {what}"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        if !self.cause.is_empty() {
            write!(f, "\ncause: {}", self.cause)?;
        }
        if !self.help.is_empty() {
            write!(f, "\nhelp:  {}", self.help)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
