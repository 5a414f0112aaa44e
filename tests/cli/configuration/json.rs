//! JSON as it is written, with keys in their order.
use std::fmt::Write;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    /// As it stands in the source.
    Number(String),
    Text(String),
    List(Vec<Self>),
    Object(Vec<(String, Self)>),
}

pub(crate) fn text(text: impl Into<String>) -> Json {
    Json::Text(text.into())
}

impl Json {
    /// Indented by two spaces a level.
    pub(crate) fn pretty(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, Some(0));
        out.push('\n');
        out
    }

    /// In one line.
    pub(crate) fn plain(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, None);
        out
    }

    fn write(&self, out: &mut String, indent: Option<usize>) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(on) => out.push_str(if *on { "true" } else { "false" }),
            Self::Number(number) => out.push_str(number),
            Self::Text(text) => quote(out, text),
            Self::List(items) => {
                // Lists of plain values stay in a line.
                let nested = items.iter().any(|i| matches!(i, Self::List(_) | Self::Object(_)));
                let entries = items.iter().map(|item| (None, item));
                enclosed(out, ['[', ']'], entries, if nested { indent } else { None });
            }
            Self::Object(entries) => {
                let entries = entries.iter().map(|(key, value)| (Some(key.as_str()), value));
                enclosed(out, ['{', '}'], entries, indent);
            }
        }
    }
}

fn enclosed<'a>(
    out: &mut String,
    [open, close]: [char; 2],
    entries: impl Iterator<Item = (Option<&'a str>, &'a Json)>,
    indent: Option<usize>,
) {
    out.push(open);
    let mut any = false;
    for (key, value) in entries {
        match (any, indent) {
            (true, None) => out.push_str(", "),
            (true, Some(_)) => out.push(','),
            _ => {}
        }
        any = true;
        if let Some(depth) = indent {
            let _ = write!(out, "\n{}", "  ".repeat(depth + 1));
        }
        if let Some(key) = key {
            quote(out, key);
            out.push_str(": ");
        }
        value.write(out, indent.map(|depth| depth + 1));
    }
    if let (Some(depth), true) = (indent, any) {
        let _ = write!(out, "\n{}", "  ".repeat(depth));
    }
    out.push(close);
}

fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            _ => out.push(c),
        }
    }
    out.push('"');
}
