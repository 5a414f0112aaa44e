//! The line, and the texts of a PNG among which it stands.

/// The keywords of a PNG's text under which a stamp may be.
pub(super) const KEYWORDS: [&str; 2] = ["Software", "srk"];

/// The stamp of an output that was made with `settings`, names and values. What would break the line, such as a
/// space in a name, becomes `_`.
pub fn stamp(settings: &[(&str, String)]) -> String {
    let plain = |value: &str| -> String {
        value.chars().map(|c| if c.is_whitespace() || c.is_control() { '_' } else { c }).collect()
    };
    let settings = settings.iter().map(|(key, value)| format!(" {key}={}", plain(value)));
    format!("srk {}{}", env!("CARGO_PKG_VERSION"), settings.collect::<String>())
}

/// Whether `text` is what [`stamp`] makes, by any version.
pub fn is_stamp(text: &str) -> bool {
    text.strip_prefix("srk ").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// The texts of a PNG, with `stamp` in place of an older one.
pub(in crate::imaging) fn texts(
    given: &[(String, String)],
    stamp: Option<&str>,
) -> Vec<(String, String)> {
    let mut texts: Vec<_> = given.iter().filter(|(_, text)| !is_stamp(text)).cloned().collect();
    if let Some(stamp) = stamp {
        let taken = texts.iter().any(|(keyword, _)| keyword == KEYWORDS[0]);
        texts.push((KEYWORDS[usize::from(taken)].to_owned(), stamp.to_owned()));
    }
    texts
}
