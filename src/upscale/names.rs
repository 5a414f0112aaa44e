//! The names of outputs: a template that each picture fills in, such as `{stem}_x{scale}`.
use std::ffi::{OsStr, OsString};

use crate::error::Result;
use crate::imaging::encode::{AVIF_HELP, Format};

/// What may stand between braces.
const FIELDS: [(&str, Field); 7] = [
    ("stem", Field::Stem),
    ("ext", Field::Ext),
    ("model", Field::Model),
    ("scale", Field::Scale),
    ("seed", Field::Seed),
    ("w", Field::Width),
    ("h", Field::Height),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Stem,
    Ext,
    Model,
    Scale,
    Seed,
    Width,
    Height,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(Field),
}

/// A name with fields, without the extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
    /// That of the extension at its end, if it has one.
    format: Option<Format>,
}

/// What is the same for all pictures of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The model's name.
    pub model: String,
    /// The factor, or the size that was asked for.
    pub scale: String,
    /// The seed of the noise.
    pub seed: u64,
}

/// Tells width and height of an output.
pub type SizeOf<'a> = dyn Fn() -> Result<(usize, usize)> + 'a;

impl Template {
    /// Reads `text`.
    ///
    /// # Errors
    /// In words, if a field is unknown, a brace alone, or a name would lead into another folder.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(open);
            let field = from.strip_prefix('{').and_then(|inner| inner.split_once('}'));
            let Some((name, after)) = field else {
                return Err(format!("a brace stands alone; fields are {}", list()));
            };
            let known = FIELDS.iter().find(|(known, _)| *known == name);
            let Some(&(_, field)) = known else {
                return Err(format!("there is no field {{{name}}}; fields are {}", list()));
            };
            parts.extend([Part::Text(before.to_owned()), Part::Field(field)]);
            rest = after;
        }
        let (tail, format) = match rest.rsplit_once('.') {
            Some((tail, end)) if Format::from_extension(end).is_some() => {
                (tail, Format::from_extension(end))
            }
            _ => (rest, None),
        };
        if let Some(cause) = format.and_then(Format::missing) {
            return Err(format!("{cause}; {AVIF_HELP}"));
        }
        parts.push(Part::Text(tail.to_owned()));
        parts.retain(|part| *part != Part::Text(String::new()));
        if text.contains(['/', '\\']) {
            return Err("a name, without folders; -o names the folder".into());
        }
        if parts.is_empty() {
            return Err("an empty name".into());
        }
        Ok(Self { parts, format })
    }

    /// The format that the template ends in.
    pub fn format(&self) -> Option<Format> {
        self.format
    }

    /// The same, for outputs whose format something else says.
    #[must_use]
    pub fn of_any_format(self) -> Self {
        Self { format: None, ..self }
    }

    /// Whether names say the seed.
    pub fn says_seed(&self) -> bool {
        self.parts.contains(&Part::Field(Field::Seed))
    }

    /// The name of the output of `input`, a file name, without an extension.
    ///
    /// # Errors
    /// That of `size`, which is only asked where the template says it.
    pub fn fill(&self, input: &OsStr, facts: &Facts, size: &SizeOf<'_>) -> Result<OsString> {
        let input = std::path::Path::new(input);
        let mut name = OsString::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => name.push(text),
                Part::Field(Field::Stem) => name.push(input.file_stem().unwrap_or_default()),
                Part::Field(Field::Ext) => name.push(input.extension().unwrap_or_default()),
                Part::Field(Field::Model) => name.push(&facts.model),
                Part::Field(Field::Scale) => name.push(&facts.scale),
                Part::Field(Field::Seed) => name.push(facts.seed.to_string()),
                Part::Field(Field::Width) => name.push(size()?.0.to_string()),
                Part::Field(Field::Height) => name.push(size()?.1.to_string()),
            }
        }
        Ok(name)
    }
}

fn list() -> String {
    FIELDS.map(|(name, _)| format!("{{{name}}}")).join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str, input: &str) -> String {
        let facts = Facts { model: "srk-x4".into(), scale: "2.5".into(), seed: 7 };
        let template = Template::parse(template).unwrap();
        let name = template.fill(OsStr::new(input), &facts, &|| Ok((40, 30))).unwrap();
        name.into_string().unwrap()
    }

    #[test]
    fn fields_are_filled_in_and_stems_keep_their_points() {
        assert_eq!(filled("{stem}_x{scale}", "a.b.jpg"), "a.b_x2.5");
        assert_eq!(filled("{stem}_{ext}", "a.png"), "a_png");
        assert_eq!(filled("{stem}-{model}-{seed}-{w}x{h}", "a.png"), "a-srk-x4-7-40x30");
        assert_eq!(filled("big {stem}", "a"), "big a");
    }

    #[test]
    fn an_extension_at_the_end_is_a_format() {
        for (text, format) in [
            ("{stem}_big.webp", Some(Format::WebP)),
            ("{stem}.{ext}", None),
            ("{stem}.old", None),
            ("{stem}", None),
        ] {
            assert_eq!(Template::parse(text).unwrap().format(), format, "{text}");
        }
        assert_eq!(filled("{stem}_big.webp", "a.jpg"), "a_big");
    }

    #[test]
    fn what_cannot_be_a_name_is_refused_with_the_fields() {
        for (text, word) in [
            ("{name}", "{stem}"),
            ("{stem", "alone"),
            ("a}", "alone"),
            ("x/{stem}", "folder"),
            ("", "empty"),
        ] {
            let error = Template::parse(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
