//! A kernel by its place in the table of all.

/// A compiled kernel: a row of the [table](super::kernels::TABLE).
#[derive(Debug, PartialEq, Eq)]
pub struct Kernel {
    index: usize,
    name: &'static str,
    module: &'static str,
    parameters: &'static [u8],
}

impl Kernel {
    /// The kernel `name` of `kernels/module.cu`, number `index` of its table, whose `parameters` have these bytes.
    pub const fn new(
        index: usize,
        name: &'static str,
        module: &'static str,
        parameters: &'static [u8],
    ) -> Self {
        Self { index, name, module, parameters }
    }

    /// Its place in the table: what drivers keep of kernels lies in vectors of this order.
    pub const fn index(&self) -> usize {
        self.index
    }

    /// The exported name, such as `silu_forward_f16`.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The source that it is in, without its extension.
    pub const fn module(&self) -> &'static str {
        self.module
    }

    /// The bytes of each parameter.
    pub const fn parameters(&self) -> &'static [u8] {
        self.parameters
    }
}
