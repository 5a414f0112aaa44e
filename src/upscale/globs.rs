//! Patterns of names: `*` is any letters, `?` is one, `**` goes through folders, too.
use std::path::Path;

/// A pattern. With a `/` it is for the path below the folder that is searched, else for the name of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    pattern: Vec<char>,
    of_path: bool,
}

impl Glob {
    /// Reads `text`.
    ///
    /// # Errors
    /// In words, if it is empty or begins at the root.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a pattern such as '*.jpg'".into());
        }
        if text.starts_with('/') {
            return Err("patterns are for what is below the folder, such as 'raw/*'".into());
        }
        // A folder alone means all that is in it.
        let whole = if text.ends_with('/') { format!("{text}**") } else { text.to_owned() };
        Ok(Self { of_path: whole.contains('/'), pattern: whole.chars().collect() })
    }

    /// Whether it is that of the file `below` the folder.
    pub fn matches(&self, below: &Path) -> bool {
        let text = match self.of_path {
            true => below.to_string_lossy().replace('\\', "/"),
            false => below.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        };
        let text: Vec<char> = text.chars().collect();
        fits(&self.pattern, &text)
    }
}

/// Whether `pattern` fits all of `text`. At each letter of the pattern the places of the text that what is before it
/// can end at are kept, so that no pattern takes long.
fn fits(pattern: &[char], text: &[char]) -> bool {
    let mut ends = vec![false; text.len() + 1];
    ends[0] = true;
    let mut rest = pattern;
    while let Some(&letter) = rest.first() {
        let mut next = vec![false; text.len() + 1];
        // Whether something before the place can be an end.
        let mut before = false;
        for i in 0..=text.len() {
            let last = i.checked_sub(1).map(|i| text[i]);
            next[i] = match rest {
                // Folders, or none.
                ['*', '*', '/', ..] => ends[i] || before && last == Some('/'),
                ['*', '*', ..] => ends[i] || before,
                ['*', ..] => ends[i] || i > 0 && next[i - 1] && last != Some('/'),
                ['?', ..] => i > 0 && ends[i - 1] && last != Some('/'),
                _ => i > 0 && ends[i - 1] && last == Some(letter),
            };
            before |= ends[i];
        }
        ends = next;
        rest = match rest {
            ['*', '*', '/', rest @ ..] | ['*', '*', rest @ ..] | [_, rest @ ..] => rest,
            [] => rest,
        };
    }
    ends[text.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_names_and_paths() {
        for (pattern, path, fit) in [
            ("*.jpg", "a.jpg", true),
            ("*.jpg", "sub/a.jpg", true),
            ("*.jpg", "a.jpeg", false),
            ("*.jpg", "a.JPG", false),
            ("IMG_????.*", "IMG_0042.png", true),
            ("IMG_????.*", "IMG_042.png", false),
            ("*", "a", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("raw/*", "raw/a.png", true),
            ("raw/*", "raw/b/a.png", false),
            ("raw/*", "a.png", false),
            ("raw/", "raw/b/a.png", true),
            ("raw/**", "raw/b/a.png", true),
            ("**/a.png", "x/y/a.png", true),
            ("**/a.png", "a.png", true),
            ("**/a.png", "ba.png", false),
            ("x/**/a.png", "x/a.png", true),
            ("x/**/a.png", "x/y/z/a.png", true),
            ("?", "ö", true),
        ] {
            assert_eq!(
                Glob::parse(pattern).unwrap().matches(Path::new(path)),
                fit,
                "{pattern} {path}"
            );
        }
        assert!(Glob::parse("").is_err() && Glob::parse("/a/*").is_err());
    }

    #[test]
    fn no_pattern_takes_long() {
        let pattern = Glob::parse(&"*a".repeat(200)).unwrap();
        assert!(!pattern.matches(Path::new(&"a".repeat(199))));
    }
}
