//! The kernels that a source declares: names, element types and parameters.
use super::preprocessor::{OR_NULL, Result, Token, closing};

/// What a kernel declares, for every element type that it exists for.
#[derive(Debug, PartialEq)]
pub(super) struct Kernel {
    /// Without the suffix of an element type.
    pub(super) name: String,
    /// The types that `T` stands for, in the order of their declarations; empty where there is no `T`.
    pub(super) types: Vec<Element>,
    pub(super) parameters: Vec<Parameter>,
}

/// A type that numbers have in memory, and a suffix of kernels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Element {
    F32,
    F16,
    BF16,
}

#[derive(Debug, PartialEq)]
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// As it is declared, such as `const T *x`.
    pub(super) text: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Pointer {
        to: Pointee,
        constant: bool,
        or_null: bool,
    },
    Int,
    Unsigned,
    Unsigned64,
    Float,
    /// A tensor that the TMA loads.
    Map,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pointee {
    /// `T`
    OfLaunch,
    /// One type for all. Integers and addresses count as `float`: the engine keeps tables as such bits.
    Fixed(Element),
}

impl Element {
    pub(super) const ALL: [Self; 3] = [Self::F32, Self::F16, Self::BF16];

    fn parse(name: &str) -> Option<Self> {
        match name {
            "float" => Some(Self::F32),
            "__half" | "f16" => Some(Self::F16),
            "__nv_bfloat16" | "bf16" => Some(Self::BF16),
            _ => None,
        }
    }

    /// What the names of kernels end in.
    pub(super) const fn suffix(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
        }
    }
}

impl Kernel {
    /// Whether it takes a tensor of the type `T`, that always is there: then this one gives the type.
    pub(super) fn typed_by(&self) -> Option<&Parameter> {
        let always = |p: &&Parameter| {
            matches!(p.kind, Kind::Pointer { to: Pointee::OfLaunch, or_null: false, .. })
        };
        self.parameters.iter().find(always)
    }

    /// The exported names.
    pub(super) fn entries(&self) -> Vec<String> {
        match self.types.is_empty() {
            true => vec![self.name.clone()],
            false => self.types.iter().map(|t| format!("{}_{}", self.name, t.suffix())).collect(),
        }
    }
}

/// The kernels in the expanded tokens of a source, in their order.
pub(super) fn kernels(tokens: &[Token]) -> Result<Vec<Kernel>> {
    let mut kernels: Vec<Kernel> = Vec::new();
    // What `T` was last said to be; good for one kernel.
    let mut t = None;
    for at in 0..tokens.len() {
        match strings(&tokens[at..]).as_slice() {
            ["using", "T", "=", name, ..] => t = Element::parse(name),
            ["extern", "\"C\"", "__global__", "void", ..] => {
                let (name, parameters) = declaration(&tokens[at + 4..])?;
                add(&mut kernels, &name, t.take(), parameters)?;
            }
            _ => {}
        }
    }
    Ok(kernels)
}

/// The enumerations with names, `enum Factor { X, Y };`: the order of a table, or what an `int` may be.
pub(super) fn enums(tokens: &[Token]) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for at in 0..tokens.len() {
        if let ["enum", name, "{", ..] = strings(&tokens[at..]).as_slice() {
            let inside = tokens[at + 3..].iter().take_while(|t| *t != "}");
            found.push(((*name).to_owned(), inside.filter(|t| *t != ",").cloned().collect()));
        }
    }
    found
}

fn strings(tokens: &[Token]) -> Vec<&str> {
    tokens.iter().take(4).map(String::as_str).collect()
}

/// Adds a declaration as a kernel, or as one more type of the last.
fn add(
    kernels: &mut Vec<Kernel>,
    name: &str,
    t: Option<Element>,
    parameters: Vec<Parameter>,
) -> Result<()> {
    let Some(t) = t else {
        kernels.push(Kernel { name: name.to_owned(), types: Vec::new(), parameters });
        return Ok(());
    };
    let suffix = format!("_{}", t.suffix());
    let base = name.strip_suffix(&suffix).ok_or_else(|| format!("{name}: not of {suffix}"))?;
    match kernels.last_mut().filter(|last| last.name == base) {
        Some(last) if last.parameters == parameters => last.types.push(t),
        Some(_) => return Err(format!("{name}: its parameters are not those of its siblings")),
        None => kernels.push(Kernel { name: base.to_owned(), types: vec![t], parameters }),
    }
    Ok(())
}

/// Name and parameters, behind `void` and perhaps `__launch_bounds__(..)`.
fn declaration(mut tokens: &[Token]) -> Result<(String, Vec<Parameter>)> {
    let cut = || "a kernel's declaration is cut off".to_owned();
    if tokens.first().is_some_and(|t| t == "__launch_bounds__") {
        tokens = &tokens[closing(&tokens[1..]).ok_or_else(cut)? + 2..];
    }
    let (name, rest) = tokens.split_first().ok_or_else(cut)?;
    let inside = &rest[..closing(rest).ok_or_else(cut)?];
    let declared = inside.get(1..).unwrap_or_default().split(|t| t == ",");
    let parameters = declared.map(parameter).collect::<Result<_>>();
    Ok((name.clone(), parameters.map_err(|e| format!("{name}: {e}"))?))
}

/// `const T *x`, `int n`, and so on.
fn parameter(tokens: &[Token]) -> Result<Parameter> {
    let or_null = tokens.last().is_some_and(|t| t == OR_NULL);
    let words: Vec<&str> = tokens.iter().map(String::as_str).filter(|t| *t != OR_NULL).collect();
    let (name, kind) = words.split_last().ok_or("a parameter without a name")?;
    let text = format!("{} {name}", kind.join(" ")).replace("* ", "*");
    let constant = kind.first() == Some(&"const");
    let kind = match kind[usize::from(constant)..] {
        ["int"] => Kind::Int,
        ["unsigned"] => Kind::Unsigned,
        ["unsigned", "long", "long"] => Kind::Unsigned64,
        ["float"] => Kind::Float,
        ["__grid_constant__", "TensorMap"] => Kind::Map,
        ["T", "*"] => Kind::Pointer { to: Pointee::OfLaunch, constant, or_null },
        ["int", "*"] | ["unsigned", "long", "long", "*"] => {
            Kind::Pointer { to: Pointee::Fixed(Element::F32), constant, or_null }
        }
        [name, "*"] => {
            let element = Element::parse(name).ok_or_else(|| unknown(&text))?;
            Kind::Pointer { to: Pointee::Fixed(element), constant, or_null }
        }
        _ => return Err(unknown(&text)),
    };
    Ok(Parameter { name: (*name).to_owned(), kind, text })
}

fn unknown(text: &str) -> String {
    format!("launchers know no parameter such as `{text}`")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::preprocessor::expanded;
    use super::*;

    const MACROS: &str = "#define KERNEL extern \"C\" __global__ void\n\
        #define EXPORT(suffix, type, name, list) \
        namespace in_##suffix { using T = type; KERNEL __launch_bounds__(256, 2) name##_##suffix list { } }\n\
        #define BOTH(name, list) EXPORT(f32, float, name, list) EXPORT(bf16, __nv_bfloat16, name, list)\n";

    fn of(source: &str) -> Result<Vec<Kernel>> {
        kernels(&expanded(&format!("{MACROS}{source}"), &BTreeMap::new())?)
    }

    const fn pointer(to: Pointee, constant: bool, or_null: bool) -> Kind {
        Kind::Pointer { to, constant, or_null }
    }

    #[test]
    fn the_types_of_a_kernel_are_one_kernel() {
        let found = of("BOTH(f, (const T *x, T *y, int n)) BOTH(g, (T *y))").unwrap();
        let names: Vec<&str> = found.iter().map(|k| k.name.as_str()).collect();
        assert_eq!(names, ["f", "g"]);
        assert_eq!(found[0].types, [Element::F32, Element::BF16]);
        assert_eq!(found[0].entries(), ["f_f32", "f_bf16"]);
        assert_eq!(found[0].typed_by().unwrap().text, "const T *x");
    }

    #[test]
    fn every_kind_of_parameter_is_told_apart() {
        let source = "KERNEL f(const float *a, float *b /* or null */, const int *c, __half *d, \
            const unsigned long long *e, unsigned long long g, unsigned h, int i, float j, \
            const __grid_constant__ TensorMap k) {}";
        let kernel = of(source).unwrap().remove(0);
        let f32 = Pointee::Fixed(Element::F32);
        let kinds: Vec<Kind> = kernel.parameters.iter().map(|p| p.kind).collect();
        let want = [
            pointer(f32, true, false),
            pointer(f32, false, true),
            pointer(f32, true, false),
            pointer(Pointee::Fixed(Element::F16), false, false),
            pointer(f32, true, false),
            Kind::Unsigned64,
            Kind::Unsigned,
            Kind::Int,
            Kind::Float,
            Kind::Map,
        ];
        assert_eq!(kinds, want);
        assert_eq!(kernel.types, []);
        assert_eq!(kernel.typed_by(), None);
        assert_eq!(kernel.parameters[4].text, "const unsigned long long *e");
    }

    #[test]
    fn enumerations_with_names_are_found() {
        let tokens = expanded("enum { A }; enum B { C, D };", &BTreeMap::new()).unwrap();
        assert_eq!(enums(&tokens), [("B".into(), vec!["C".into(), "D".into()])]);
    }

    #[test]
    fn what_launchers_do_not_know_is_an_error_that_names_it() {
        let error = of("KERNEL f(int n, double v) {}").unwrap_err();
        assert_eq!(error, "f: launchers know no parameter such as `double v`");
        let error = of("KERNEL f(int n").unwrap_err();
        assert_eq!(error, "a kernel's declaration is cut off");
        let siblings = "EXPORT(f32, float, f, (T *x)) EXPORT(f16, __half, f, (T *y))";
        assert_eq!(
            of(siblings).unwrap_err(),
            "f_f16: its parameters are not those of its siblings"
        );
    }
}
