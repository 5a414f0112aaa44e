//! As much of the C preprocessor as the declarations of kernels need: macros with and without parameters, `##`,
//! and the project's own headers. Conditions are not evaluated, both sides are read: no declaration is under one.
use std::collections::BTreeMap;

/// Errors are for whoever builds: one line each.
pub(super) type Result<T> = std::result::Result<T, String>;

/// A name or number, a string, `##`, or one other character.
pub(super) type Token = String;

/// What the comment `/* or null */` behind a pointer becomes. All other comments are dropped.
pub(super) const OR_NULL: &str = "or_null";

/// A macro without parameters, or with some.
struct Macro {
    parameters: Option<Vec<Token>>,
    body: Vec<Token>,
}

type Macros = BTreeMap<Token, Macro>;

/// The tokens of `source` with all macros expanded, those of its `headers` (by name) too. Headers declare macros
/// alone: what else they hold is left out.
pub(super) fn expanded(source: &str, headers: &BTreeMap<String, String>) -> Result<Vec<Token>> {
    let mut macros = Macros::new();
    let tokens = read(source, headers, &mut Vec::new(), &mut macros);
    let mut out = Vec::new();
    expand(&tokens, &macros, &mut Vec::new(), &mut out)?;
    Ok(out)
}

/// Adds the macros of `text` and of what it includes to `macros`, and returns its other tokens.
fn read(
    text: &str,
    headers: &BTreeMap<String, String>,
    included: &mut Vec<String>,
    macros: &mut Macros,
) -> Vec<Token> {
    let mut tokens = Vec::new();
    for line in without_comments(text).replace("\\\n", " ").lines() {
        let Some(directive) = line.trim_start().strip_prefix('#') else {
            tokens.extend(lex(line));
            continue;
        };
        if let Some(rest) = directive.trim_start().strip_prefix("define ") {
            macros.extend(definition(rest));
        } else if let Some(rest) = directive.trim_start().strip_prefix("include ") {
            let name = rest.trim().trim_matches('"').to_owned();
            if let Some(header) = headers.get(&name).filter(|_| !included.contains(&name)) {
                included.push(name);
                read(header, headers, included, macros);
            }
        }
    }
    tokens
}

/// The macro behind `#define`; none of those with any number of parameters, which no declaration uses.
fn definition(text: &str) -> Option<(Token, Macro)> {
    let tokens = lex(text);
    let (name, rest) = tokens.split_first()?;
    // Parameters follow the name without a space: else the parenthesis is part of the body.
    if !text.trim_start()[name.len()..].starts_with('(') {
        return Some((name.clone(), Macro { parameters: None, body: rest.to_vec() }));
    }
    let (parameters, used) = arguments(rest)?;
    let parameters: Vec<Token> = parameters.iter().map(|p| p.concat()).collect();
    let simple = !parameters.iter().any(|p| p == "...");
    let body = rest[used..].to_vec();
    simple.then(|| (name.clone(), Macro { parameters: Some(parameters), body }))
}

/// Appends `tokens` to `out`, macros replaced, but for the `active` ones, inside which they stand.
fn expand(
    tokens: &[Token],
    macros: &Macros,
    active: &mut Vec<Token>,
    out: &mut Vec<Token>,
) -> Result<()> {
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        at += 1;
        let known = macros.get(token).filter(|_| !active.contains(token));
        let body = match known.map(|m| (m, &m.parameters)) {
            None => None,
            Some((known, None)) => Some(known.body.clone()),
            // Without parentheses behind it, the name is none of a macro.
            Some((known, Some(parameters))) => match arguments(&tokens[at..]) {
                None => None,
                Some((arguments, used)) => {
                    at += used;
                    Some(substitute(token, known, parameters, &arguments)?)
                }
            },
        };
        let Some(body) = body else {
            out.push(token.clone());
            continue;
        };
        active.push(token.clone());
        expand(&body, macros, active, out)?;
        active.pop();
    }
    Ok(())
}

/// The body of a macro, its parameters replaced and `##` done.
fn substitute(
    name: &str,
    known: &Macro,
    parameters: &[Token],
    arguments: &[Vec<Token>],
) -> Result<Vec<Token>> {
    if parameters.len() != arguments.len() {
        let (takes, given) = (parameters.len(), arguments.len());
        return Err(format!("{name} takes {takes} arguments, not {given}"));
    }
    let mut out: Vec<Token> = Vec::new();
    let mut paste = false;
    for token in &known.body {
        if token == "##" {
            paste = true;
            continue;
        }
        let place = parameters.iter().position(|p| p == token);
        let mut piece = place.map_or(std::slice::from_ref(token), |i| &arguments[i]).iter();
        if paste && let Some(last) = out.last_mut() {
            last.extend(piece.next().map(String::as_str));
        }
        paste = false;
        out.extend(piece.cloned());
    }
    Ok(out)
}

/// The arguments of a macro in the parentheses that `tokens` begin with, and how many tokens those take.
fn arguments(tokens: &[Token]) -> Option<(Vec<Vec<Token>>, usize)> {
    let end = closing(tokens)?;
    let mut all = vec![Vec::new()];
    let mut depth = 0;
    for token in &tokens[1..end] {
        match token.as_str() {
            "," if depth == 0 => {
                all.push(Vec::new());
                continue;
            }
            "(" => depth += 1,
            ")" => depth -= 1,
            _ => {}
        }
        all.last_mut()?.push(token.clone());
    }
    Some((all, end + 1))
}

/// Where the parenthesis closes that is the first of `tokens`.
pub(super) fn closing(tokens: &[Token]) -> Option<usize> {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token.as_str() {
            "(" => depth += 1,
            ")" => depth -= 1,
            _ => {}
        }
        match depth {
            0 if at == 0 => return None,
            0 => return Some(at),
            _ => {}
        }
    }
    None
}

/// `text` with a space for each comment, or [`OR_NULL`]. Strings of kernels hold none.
fn without_comments(text: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find('/') {
        let (before, from) = rest.split_at(at);
        let length = match from.as_bytes().get(1) {
            Some(b'/') => from.find('\n').unwrap_or(from.len()),
            Some(b'*') => from.find("*/").map_or(from.len(), |end| end + 2),
            _ => 1,
        };
        let words = from[..length].trim_matches(['/', '*', ' ']);
        let instead = if words == "or null" && from.starts_with("/*") { OR_NULL } else { "" };
        let instead = if length == 1 { "/" } else { instead };
        out.extend([before, " ", instead, " "]);
        rest = &from[length..];
    }
    out + rest
}

/// The tokens of a line.
fn lex(line: &str) -> Vec<Token> {
    let (mut tokens, mut rest) = (Vec::new(), line.trim_start());
    while let Some(first) = rest.chars().next() {
        let of_name = |c: char| c.is_alphanumeric() || c == '_';
        let length = match first {
            c if of_name(c) => rest.find(|c| !of_name(c)).unwrap_or(rest.len()),
            '"' => rest[1..].find('"').map_or(rest.len(), |end| end + 2),
            '#' if rest.starts_with("##") => 2,
            c => c.len_utf8(),
        };
        tokens.push(rest[..length].to_owned());
        rest = rest[length..].trim_start();
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(source: &str, headers: &[(&str, &str)]) -> Result<String> {
        let headers = headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Ok(expanded(source, &headers)?.join(" "))
    }

    #[test]
    fn macros_of_headers_expand_and_paste_names() {
        let header = "#pragma once\n#include \"b.cuh\"\n#define TWICE(name, list) \\\n  ONE(f32, name, list) ONE(f16, name, list)\nint dropped;";
        let deeper = "#define ONE(suffix, name, list) name##_##suffix list;";
        let headers = [("a.cuh", header), ("b.cuh", deeper)];
        let source = "#include \"a.cuh\"\n#define LIST (int n, int m)\nTWICE(f,\n  LIST) TWICE";
        let want = "f_f32 ( int n , int m ) ; f_f16 ( int n , int m ) ; TWICE";
        assert_eq!(of(source, &headers).unwrap(), want);
    }

    #[test]
    fn the_text_of_conditions_is_read_and_what_recurs_stays() {
        let source = "#if A\n#define N 1\n#else\n#define M f(N, M)\n#endif\nN M";
        assert_eq!(of(source, &[]).unwrap(), "1 f ( 1 , M )");
    }

    #[test]
    fn a_parenthesis_behind_a_space_is_of_the_body() {
        assert_eq!(of("#define A (x)\n#define B(x) [x]\nA B(y)", &[]).unwrap(), "( x ) [ y ]");
    }

    #[test]
    fn comments_go_but_for_the_one_that_means_something() {
        let source = "a // or null\n/* b */ *c /* or null */, \"d e\" f/g";
        assert_eq!(of(source, &[]).unwrap(), "a * c or_null , \"d e\" f / g");
    }

    #[test]
    fn a_macro_with_too_few_arguments_is_an_error() {
        let error = of("#define F(a, b) a b\nF(1)", &[]).unwrap_err();
        assert_eq!(error, "F takes 2 arguments, not 1");
    }
}
