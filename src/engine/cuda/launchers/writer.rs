//! From the declarations of kernels to the text of their launchers.
use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::declarations::{self, Element, Kernel, Kind, Parameter, Pointee};
use super::preprocessor::{self, Result};

/// The source text of the launchers of all `sources`: names and texts of `kernels/*.cu` and `*.cuh`.
///
/// # Errors
/// If a declaration has a parameter that launchers do not know, or a macro other arguments than it takes.
pub(crate) fn generate(sources: &BTreeMap<String, String>) -> Result<String> {
    let mut text = String::from("// Written by src/engine/cuda/launchers from kernels/*.cu.\n");
    let (mut modules, mut enums) = (Vec::new(), BTreeMap::new());
    for (file, source) in sources {
        let in_file = |e: String| format!("kernels/{file}: {e}");
        let tokens = preprocessor::expanded(source, sources).map_err(in_file)?;
        // Headers declare no kernels.
        if let Some(stem) = file.strip_suffix(".cu") {
            modules.push((stem, declarations::kernels(&tokens).map_err(in_file)?));
        }
        for (name, variants) in declarations::enums(&tokens) {
            match enums.get(&name) {
                None => drop(enumeration(&mut text, file, &name, &variants)),
                Some(known) if *known == variants => {}
                Some(_) => return Err(in_file(format!("enum {name} is another elsewhere"))),
            }
            enums.insert(name, variants);
        }
    }
    // Writing to a string does not fail.
    let _ = table(&mut text, &modules);
    let mut index = 0;
    for (stem, kernels) in &modules {
        for kernel in kernels {
            let _ = launcher(&mut text, stem, kernel, index);
            index += kernel.entries().len();
        }
    }
    Ok(text)
}

/// An enumeration under its own names.
fn enumeration(text: &mut String, file: &str, name: &str, all: &[String]) -> std::fmt::Result {
    writeln!(text, "\n/// `enum {name}` of kernels/{file}.")?;
    writeln!(text, "#[derive(Clone, Copy, Debug)]\n#[allow(missing_docs)]\npub enum {name} {{")?;
    all.iter().try_for_each(|variant| writeln!(text, "    {variant},"))?;
    writeln!(text, "}}\n\nimpl {name} {{\n    /// How many there are.")?;
    writeln!(text, "    pub const COUNT: usize = {};\n}}", all.len())
}

/// All kernels, in the order that launchers count them in.
fn table(text: &mut String, modules: &[(&str, Vec<Kernel>)]) -> std::fmt::Result {
    let mut lines = String::new();
    let mut index = 0;
    for (stem, kernels) in modules {
        for kernel in kernels {
            let sizes: Vec<u8> = kernel.parameters.iter().map(|p| p.kind.bytes()).collect();
            for entry in kernel.entries() {
                writeln!(lines, "    Kernel::new({index}, {entry:?}, {stem:?}, &{sizes:?}),")?;
                index += 1;
            }
        }
    }
    writeln!(text, "\n/// All kernels; each is at its [index](Kernel::index).")?;
    writeln!(text, "pub static TABLE: [Kernel; {index}] = [\n{lines}];")
}

/// The struct of `kernel`, whose first entry is number `index` of the table.
fn launcher(text: &mut String, stem: &str, kernel: &Kernel, index: usize) -> std::fmt::Result {
    let name = &kernel.name;
    let borrows =
        kernel.parameters.iter().any(|p| matches!(p.kind, Kind::Pointer { .. } | Kind::Map));
    let (of, any) = if borrows { ("<'a>", "<'_>") } else { ("", "") };
    writeln!(text, "\n/// `{name}` of kernels/{stem}.cu.")?;
    writeln!(text, "#[derive(Debug)]\npub struct {name}{of} {{")?;
    for parameter in &kernel.parameters {
        let Parameter { name, kind, text: declared } = parameter;
        let or_null = if kind.or_null() { ", or null" } else { "" };
        writeln!(text, "    /// `{declared}`{or_null}")?;
        writeln!(text, "    pub {name}: {},", kind.rust())?;
    }
    writeln!(text, "}}\n\nimpl {name}{any} {{")?;
    let typed_by = kernel.typed_by().map(|p| p.name.as_str());
    let (doc, dtype) = match (kernel.types.is_empty(), typed_by) {
        (true, _) => ("/// Starts it.".to_owned(), ""),
        (false, Some(first)) => {
            (format!("/// Starts its version for the element type of `{first}`."), "")
        }
        (false, None) => ("/// Starts its version for `dtype`.".to_owned(), ", dtype: DType"),
    };
    writeln!(text, "    {doc}")?;
    writeln!(
        text,
        "    pub(crate) fn launch(self, gpu: &Gpu{dtype}, grid: Grid) -> Result<()> {{"
    )?;
    let versions = versions(kernel, index);
    match (kernel.types.is_empty(), typed_by) {
        (true, _) => writeln!(text, "        let call = Call::untyped(gpu, &TABLE[{index}]);")?,
        (false, Some(first)) => writeln!(
            text,
            "        let call = Call::like(gpu, {name:?}, {versions}, {first:?}, self.{first})?;"
        )?,
        (false, None) => {
            writeln!(text, "        let call = Call::of(gpu, {name:?}, {versions}, dtype)?;")?;
        }
    }
    writeln!(text, "        let arguments = [")?;
    for parameter in &kernel.parameters {
        writeln!(text, "            {},", parameter.argument())?;
    }
    writeln!(text, "        ];\n        call.start(grid, &arguments)\n    }}\n}}")
}

/// The entries of a kernel for f32, f16 and bf16.
fn versions(kernel: &Kernel, index: usize) -> String {
    let of = |element: Element| {
        let place = kernel.types.iter().position(|t| *t == element);
        place.map_or("None".to_owned(), |at| format!("Some(&TABLE[{}])", index + at))
    };
    format!("[{}]", Element::ALL.map(of).join(", "))
}

impl Kind {
    /// The bytes that a kernel reads of the argument.
    const fn bytes(self) -> u8 {
        match self {
            Self::Pointer { .. } | Self::Unsigned64 => 8,
            Self::Int | Self::Unsigned | Self::Float => 4,
            Self::Map => 128,
        }
    }

    const fn or_null(self) -> bool {
        matches!(self, Self::Pointer { or_null: true, .. })
    }

    /// The type of the field.
    const fn rust(self) -> &'static str {
        match self {
            Self::Pointer { constant: true, or_null: false, .. } => "&'a Tensor",
            Self::Pointer { constant: false, or_null: false, .. } => "&'a mut Tensor",
            Self::Pointer { constant: true, or_null: true, .. } => "Option<&'a Tensor>",
            Self::Pointer { constant: false, or_null: true, .. } => "Option<&'a mut Tensor>",
            Self::Int => "usize",
            Self::Unsigned => "u32",
            Self::Unsigned64 => "u64",
            Self::Float => "f32",
            Self::Map => "Mapped<'a>",
        }
    }
}

impl Parameter {
    /// What makes an argument of the field.
    fn argument(&self) -> String {
        let name = &self.name;
        match self.kind {
            Kind::Pointer { to, constant, or_null } => {
                let borrow = if or_null && !constant { ".as_deref()" } else { "" };
                let (method, dtype) = match to {
                    Pointee::OfLaunch => (["like_tensor", "like_or_null"], String::new()),
                    Pointee::Fixed(element) => {
                        (["tensor", "tensor_or_null"], format!(", DType::{element:?}"))
                    }
                };
                let method = method[usize::from(or_null)];
                format!("call.{method}({name:?}, self.{name}{borrow}{dtype})?")
            }
            Kind::Int => format!("call.int({name:?}, self.{name})?"),
            Kind::Map => format!("call.map({name:?}, self.{name})?"),
            _ => format!("Argument::from(self.{name})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "#define KERNEL extern \"C\" __global__ void\n\
        #define F16(name, list) using T = __half; KERNEL name##_f16 list {}\n";

    fn of(source: &str) -> Result<String> {
        let sources = [("common.cuh", HEADER), ("a.cu", source)];
        let source = |(name, text): (&str, &str)| (name.to_owned(), text.to_owned());
        generate(&sources.map(source).into())
    }

    #[test]
    fn a_launcher_has_a_field_for_each_parameter_and_checks_each() {
        let declared = "F16(f, (const T *x, T *y /* or null */, const float *s, int n, \
            const __grid_constant__ TensorMap m))";
        let text = of(&format!("#include \"common.cuh\"\n{declared}")).unwrap();
        for part in [
            "    Kernel::new(0, \"f_f16\", \"a\", &[8, 8, 8, 4, 128]),\n",
            "/// `f` of kernels/a.cu.\n#[derive(Debug)]\npub struct f<'a> {\n",
            "    /// `const T *x`\n    pub x: &'a Tensor,\n",
            "    /// `T *y`, or null\n    pub y: Option<&'a mut Tensor>,\n",
            "    pub s: &'a Tensor,\n",
            "    /// `int n`\n    pub n: usize,\n",
            "Call::like(gpu, \"f\", [None, Some(&TABLE[0]), None], \"x\", self.x)?;",
            "call.like_or_null(\"y\", self.y.as_deref())?,",
            "call.tensor(\"s\", self.s, DType::F32)?,",
            "call.int(\"n\", self.n)?,",
            "    pub m: Mapped<'a>,\n",
            "call.map(\"m\", self.m)?,",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn kernels_are_counted_through_and_those_without_a_tensor_of_t_are_told_it() {
        let source = "#include \"common.cuh\"\nKERNEL g(float *y, float v) {}\nF16(f, (float *y))";
        let text = of(source).unwrap();
        assert!(text.contains("pub static TABLE: [Kernel; 2]"), "{text}");
        assert!(text.contains("Call::untyped(gpu, &TABLE[0]);"), "{text}");
        assert!(text.contains("Call::of(gpu, \"f\", [None, Some(&TABLE[1]), None], dtype)?;"));
        assert!(text.contains("fn launch(self, gpu: &Gpu, dtype: DType, grid: Grid)"), "{text}");
    }

    #[test]
    fn an_enumeration_is_one_in_all_sources() {
        let text = of("enum Factor { X, Y };\nenum Factor { X, Y };").unwrap();
        assert_eq!(text.matches("pub enum Factor {\n    X,\n    Y,\n}\n").count(), 1, "{text}");
        let error = of("enum Factor { X, Y };\nenum Factor { Y, X };").unwrap_err();
        assert_eq!(error, "kernels/a.cu: enum Factor is another elsewhere");
    }

    #[test]
    fn an_error_names_the_source() {
        let error = of("#include \"common.cuh\"\nKERNEL g(double v) {}").unwrap_err();
        assert_eq!(error, "kernels/a.cu: g: launchers know no parameter such as `double v`");
    }
}
