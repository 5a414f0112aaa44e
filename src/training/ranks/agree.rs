//! What ranks must have in common before they take a step.
use serde_json::{Value, json};

use super::group::Ranks;
use crate::error::{Error, Report, Result};

/// Something that is to be the same for all ranks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// What it is of, in words.
    pub of: &'static str,
    /// What it is here.
    pub is: String,
    /// What to do where they differ.
    pub help: &'static str,
}

/// Makes sure that all ranks say the same of all of `facts`, in the same order.
///
/// # Errors
/// Exit code 2 with the first fact that differs, and who says what.
pub fn agree(ranks: &Ranks, facts: &[Fact]) -> Result<()> {
    if ranks.world() == 1 {
        return Ok(());
    }
    let mine: Vec<&str> = facts.iter().map(|fact| fact.is.as_str()).collect();
    let all = ranks.exchange(json!(mine).to_string().into_bytes())?;
    let all: Vec<Value> =
        all.iter().map(|text| serde_json::from_slice(text).unwrap_or_default()).collect();
    for (i, fact) in facts.iter().enumerate() {
        let said = |rank: usize| all[rank][i].as_str().unwrap_or("unknown");
        if let Some(other) = (1..ranks.world()).find(|&rank| said(rank) != said(0)) {
            let what = format!("the processes do not agree on the {}", fact.of);
            let [here, there] = apart(said(0), said(other));
            let first = format!("{}: {here}", ranks.name(0));
            let cause = format!("{first}; {}: {there}", ranks.name(other));
            return Err(Error::Usage(Report::new(what, cause).help(fact.help)));
        }
    }
    Ok(())
}

/// The first lines in which two texts differ.
fn apart<'a>(a: &'a str, b: &'a str) -> [&'a str; 2] {
    let longer = a.lines().count().max(b.lines().count());
    let at = |text: &'a str, i: usize| text.lines().nth(i).unwrap_or("nothing");
    let lines = (0..longer).map(|i| [at(a, i), at(b, i)]);
    lines.into_iter().find(|[a, b]| a != b).unwrap_or([a, b])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_long_texts_the_lines_that_differ_are_told() {
        assert_eq!(apart("a\nb = 1\nc", "a\nb = 2\nd"), ["b = 1", "b = 2"]);
        assert_eq!(apart("a", "a\nb"), ["nothing", "b"]);
    }
}
