//! Reads definitions of configurations as the source has them: structs and enums that serde reads, with their comments,
//! attributes and defaults. It knows Rust as rustfmt sets it and as these definitions use it, and no more.
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::json::Json;

/// A struct or an enum that a configuration is read into.
#[derive(Clone, Debug)]
pub(crate) struct Definition {
    pub(crate) name: String,
    /// The module it is in, such as `models::span`.
    pub(crate) module: String,
    pub(crate) doc: String,
    pub(crate) serde: String,
    pub(crate) body: Body,
}

#[derive(Clone, Debug)]
pub(crate) enum Body {
    Struct(Vec<Field>),
    Enum(Vec<Variant>),
}

#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) doc: String,
    pub(crate) serde: String,
    pub(crate) ty: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Variant {
    /// As the source has it.
    pub(crate) name: String,
    pub(crate) doc: String,
    pub(crate) serde: String,
    pub(crate) is_default: bool,
    pub(crate) payload: Payload,
}

#[derive(Clone, Debug)]
pub(crate) enum Payload {
    Nothing,
    Of(String),
    Fields(Vec<Field>),
}

/// All that was read, and the texts of the modules.
#[derive(Debug, Default)]
pub(crate) struct Source {
    pub(crate) all: Vec<Definition>,
    texts: BTreeMap<String, String>,
}

impl Source {
    /// Everything below `root`, the folder of the crate's source.
    pub(crate) fn read(root: &Path) -> Self {
        let mut source = Self::default();
        source.walk(root, "");
        source
    }

    fn walk(&mut self, folder: &Path, module: &str) {
        let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
            let inner = match (module, stem.as_str()) {
                (_, "mod") => module.to_owned(),
                ("", _) => stem.clone(),
                _ => format!("{module}::{stem}"),
            };
            if path.is_dir() {
                self.walk(&path, &inner);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                self.all.extend(definitions(&text, &inner));
                self.texts.insert(inner, text);
            }
        }
    }

    /// What `name` means in `module`: a path, or the last part of one.
    pub(crate) fn find(&self, name: &str, module: &str) -> Option<&Definition> {
        let (path, last) = name.rsplit_once("::").unwrap_or(("", name));
        let named: Vec<&Definition> = self.all.iter().filter(|d| d.name == last).collect();
        if let [one] = named[..] {
            return Some(one);
        }
        let here = |d: &&&Definition| d.module == module && path.is_empty();
        let by_path = |d: &&&Definition| !path.is_empty() && d.module.ends_with(path);
        let text = self.texts.get(module).map_or("", String::as_str);
        let used = |d: &&&Definition| {
            // By the module, or one above it that exports what it holds.
            let places = d.module.match_indices("::").map(|(at, _)| &d.module[..at]);
            let place = |l: &str, module: &str| {
                let rest = l.strip_prefix(&format!("use crate::{module}::"));
                rest.is_some_and(|rest| words(rest).any(|w| w == last))
            };
            text.lines().any(|l| place(l, &d.module) || places.clone().any(|m| place(l, m)))
        };
        let found = named.iter().find(here).or_else(|| named.iter().find(by_path));
        found.or_else(|| named.iter().find(used)).copied()
    }

    /// The value that `expression` has in `module`, where `locals` are bound; none where it is not so simple.
    fn value(
        &self,
        expression: &str,
        module: &str,
        locals: &BTreeMap<String, String>,
    ) -> Option<Json> {
        let text = expression.trim();
        let plain = text.trim_end_matches(".into()").trim_end_matches(".to_owned()");
        if let Some(inner) = plain.strip_prefix('"').and_then(|t| t.strip_suffix('"')) {
            return Some(Json::Text(inner.to_owned()));
        }
        let listed = text.strip_prefix("vec!").unwrap_or(text);
        if let Some(inner) = listed.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
            let items = split(inner, ',').into_iter().map(|item| self.value(&item, module, locals));
            return items.collect::<Option<Vec<_>>>().map(Json::List);
        }
        match text {
            "true" => return Some(Json::Bool(true)),
            "false" => return Some(Json::Bool(false)),
            "None" => return Some(Json::Null),
            "Vec::new()" => return Some(Json::List(vec![])),
            _ => {}
        }
        if text.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
            let number = text.replace('_', "");
            return number.parse::<f64>().is_ok().then_some(Json::Number(number));
        }
        if let Some(local) = locals.get(text) {
            return self.value(local, module, &BTreeMap::new());
        }
        if let Some((local, key)) =
            text.split_once('.').and_then(|(a, b)| Some((locals.get(a)?, b)))
        {
            let Json::Object(entries) = self.value(local, module, &BTreeMap::new())? else {
                return None;
            };
            return entries.into_iter().find(|(name, _)| name == key).map(|(_, value)| value);
        }
        if let Some(ty) = text.strip_suffix("::default()") {
            return self.default_of(ty, module);
        }
        if let Some((ty, variant)) = text.rsplit_once("::") {
            let definition = self.find(ty, module)?;
            if let Some(rest) = variant.strip_prefix("Symmetries(") {
                return self.value(rest.strip_suffix(')')?, module, locals);
            }
            if definition.name == "Best" && variant == "No" {
                return Some(Json::Bool(false));
            }
            let Body::Enum(variants) = &definition.body else { return None };
            let found = variants.iter().find(|v| v.name == variant)?;
            return Some(Json::Text(serde_name(definition, found)));
        }
        if let Some((ty, inner)) = text.strip_suffix('}').and_then(|t| t.split_once('{')) {
            return self.object(ty.trim(), inner, module, locals);
        }
        // A constant of some module.
        let head = format!("const {text}: ");
        let line = self.texts.values().flat_map(|t| t.lines()).find(|l| l.contains(&head))?;
        let (_, value) = line.split_once(" = ")?;
        self.value(value.trim_end_matches(';'), module, &BTreeMap::new())
    }

    /// The value of `Type { a: 1, b }`.
    fn object(
        &self,
        ty: &str,
        inner: &str,
        module: &str,
        locals: &BTreeMap<String, String>,
    ) -> Option<Json> {
        let definition = self.find(ty, module)?;
        let Body::Struct(fields) = &definition.body else { return None };
        let mut entries = Vec::new();
        for entry in split(inner, ',') {
            let (name, value) = entry.split_once(':').unwrap_or((&entry, &entry));
            let field = fields.iter().find(|f| f.name == name.trim())?;
            entries.push((field.name.clone(), self.value(value, module, locals)?));
        }
        Some(Json::Object(entries))
    }

    /// The default of a type, such as `[f64; 2]` or `Jitter`.
    pub(crate) fn default_of(&self, ty: &str, module: &str) -> Option<Json> {
        let ty = ty.trim();
        match ty {
            "bool" => return Some(Json::Bool(false)),
            "usize" | "u64" | "u32" | "i64" => return Some(Json::Number("0".into())),
            "f64" | "f32" => return Some(Json::Number("0.0".into())),
            "String" | "PathBuf" => return Some(Json::Text(String::new())),
            "Augment" => return None,
            "Best" => return Some(Json::Bool(false)),
            _ => {}
        }
        match ty.split('<').next() {
            Some("Option") => return Some(Json::Null),
            Some("Vec") => return Some(Json::List(vec![])),
            Some("BTreeMap") => return Some(Json::Object(vec![])),
            _ => {}
        }
        let definition = self.find(ty, module)?;
        match &definition.body {
            Body::Enum(variants) => {
                let found = variants.iter().find(|v| v.is_default)?;
                let name = Json::Text(serde_name(definition, found));
                match word_of(&definition.serde, "tag") {
                    Some(tag) => Some(Json::Object(vec![(tag, name)])),
                    None => Some(name),
                }
            }
            Body::Struct(fields) => {
                let entry = |f: &Field| Some((f.name.clone(), self.default_in(definition, f)?));
                fields.iter().map(entry).collect::<Option<Vec<_>>>().map(Json::Object)
            }
        }
    }

    /// What stands in a struct where a field is left out; none where it must be given.
    pub(crate) fn default_in(&self, definition: &Definition, field: &Field) -> Option<Json> {
        let module = &definition.module;
        if let Some(function) = word_of(&field.serde, "default") {
            let body = block(self.texts.get(module)?, &format!("fn {function}()"))?;
            return self.value(&body, module, &BTreeMap::new());
        }
        if has(&field.serde, "default") || field.ty.starts_with("Option<") {
            return self.default_of(&field.ty, module);
        }
        has(&definition.serde, "default").then(|| self.of_impl(definition, field)).flatten()
    }

    /// The value of a field in `impl Default`, or that of its type where that is derived.
    fn of_impl(&self, definition: &Definition, field: &Field) -> Option<Json> {
        let module = &definition.module;
        let text = self.texts.get(module)?;
        let Some(implemented) = block(text, &format!("impl Default for {} ", definition.name))
        else {
            return self.default_of(&field.ty, module);
        };
        let body = block(&implemented, "fn default() -> Self")?;
        let (before, inside) = body.split_once("Self {")?;
        let mut locals = BTreeMap::new();
        for statement in split(before, ';') {
            if let Some((names, values)) =
                statement.trim().strip_prefix("let ").and_then(|l| l.split_once(" = "))
            {
                let parts =
                    |t: &str| split(t.trim().trim_start_matches('(').trim_end_matches(')'), ',');
                let values =
                    if names.starts_with('(') { parts(values) } else { vec![values.to_owned()] };
                locals.extend(parts(names).into_iter().map(|n| n.trim().to_owned()).zip(values));
            }
        }
        let inside = inside.trim_end().strip_suffix('}')?;
        let entries = split(inside, ',');
        let entry =
            entries.iter().find(|e| e.split(':').next().unwrap_or("").trim() == field.name)?;
        let (_, value) = entry.split_once(':').unwrap_or(("", entry));
        self.value(value, module, &locals)
    }
}

/// What serde calls a variant.
pub(crate) fn serde_name(of: &Definition, variant: &Variant) -> String {
    if let Some(name) = word_of(&variant.serde, "rename") {
        return name;
    }
    let between = match word_of(&of.serde, "rename_all").as_deref() {
        Some("kebab-case") => "-",
        Some("snake_case") => "_",
        _ => return variant.name.clone(),
    };
    let mut name = String::new();
    for (i, c) in variant.name.chars().enumerate() {
        if c.is_uppercase() && i > 0 {
            name.push_str(between);
        }
        name.extend(c.to_lowercase());
    }
    name
}

/// The text of `key = "text"` in attributes.
pub(crate) fn word_of(serde: &str, key: &str) -> Option<String> {
    let start = serde.find(&format!("{key} = \""))? + key.len() + 4;
    // `rename` is also the beginning of `rename_all`, which has no such end.
    Some(serde[start..].split('"').next()?.to_owned())
}

/// Whether attributes hold `key` without a value.
pub(crate) fn has(serde: &str, key: &str) -> bool {
    serde.split(['(', ')', ',']).any(|part| part.trim() == key)
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
}

/// What stands between the braces after `head`, in one line.
fn block(text: &str, head: &str) -> Option<String> {
    let start = text.find(head)?;
    let open = start + text[start..].find('{')?;
    let mut depth = 0;
    for (i, c) in text[open..].char_indices() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if depth == 0 {
            let inner = &text[open + 1..open + i];
            let code = |l: &str| l.split("//").next().unwrap_or("").trim().to_owned();
            return Some(inner.lines().map(code).collect::<Vec<_>>().join(" ").trim().to_owned());
        }
    }
    None
}

/// The parts of `text` between `at`, which counts only outside brackets and quotes; none is empty.
fn split(text: &str, at: char) -> Vec<String> {
    let (mut depth, mut quoted, mut parts) = (0, false, vec![String::new()]);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            '(' | '[' | '{' | '<' if !quoted => depth += 1,
            ')' | ']' | '}' | '>' if !quoted => depth -= 1,
            _ => {}
        }
        if c == at && depth == 0 && !quoted {
            parts.push(String::new());
        } else if let Some(last) = parts.last_mut() {
            last.push(c);
        }
    }
    let trimmed = parts.into_iter().map(|p| p.trim().to_owned());
    trimmed.filter(|p| !p.is_empty()).collect()
}

/// The definitions in a file that derive `Deserialize`, or are read by hand.
fn definitions(text: &str, module: &str) -> Vec<Definition> {
    let mut found = Vec::new();
    let mut head = Head::default();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if head.takes(line) {
            continue;
        }
        if line == "registry::models! {" {
            found.push(networks(lines.by_ref().take_while(|l| *l != "}"), module));
        }
        let code = line.trim_start_matches("pub(crate) ").trim_start_matches("pub ");
        let kind = ["struct ", "enum "]
            .iter()
            .find_map(|k| Some((*k, code.strip_prefix(k)?.strip_suffix(" {")?)));
        if let Some((kind, name)) = kind {
            let by_hand = ["Augment", "Best"].contains(&name);
            if head.attributes.contains("Deserialize") || by_hand {
                let inside: Vec<&str> = lines.by_ref().take_while(|l| *l != "}").collect();
                let body = match kind {
                    "struct " => Body::Struct(fields(&inside)),
                    _ => Body::Enum(variants(&inside)),
                };
                let (name, module) = (name.to_owned(), module.to_owned());
                let (doc, serde) = (head.doc(), head.attributes.clone());
                found.push(Definition { name, module, doc, serde, body });
            }
        }
        head = Head::default();
    }
    found
}

/// The enum that the macro of `models/registry.rs` makes of lines `module::Config, Variant, "kind", "what it is";`.
fn networks<'a>(lines: impl Iterator<Item = &'a str>, module: &str) -> Definition {
    let variant = |line: &str| {
        let parts = split(line.trim().trim_end_matches(';'), ',');
        let [config, name, kind, about] = &parts[..] else { panic!("a line of networks: {line}") };
        Variant {
            name: name.clone(),
            doc: about.trim_matches('"').to_owned(),
            serde: format!("#[serde(rename = {kind})]"),
            is_default: false,
            payload: Payload::Of(config.clone()),
        }
    };
    Definition {
        name: "ModelConfig".into(),
        module: module.to_owned(),
        doc: "Which network, and its sizes: the `[model]` section of a recipe and the `srk.config` of a file.".into(),
        serde: "#[serde(tag = \"kind\")]".into(),
        body: Body::Enum(lines.map(variant).collect()),
    }
}

/// Comments and attributes before what they belong to.
#[derive(Default)]
struct Head {
    docs: Vec<String>,
    attributes: String,
    open: bool,
}

impl Head {
    /// Whether `line` is one of them.
    fn takes(&mut self, line: &str) -> bool {
        let line = line.trim();
        if let Some(doc) = line.strip_prefix("///") {
            self.docs.push(doc.trim().to_owned());
            return true;
        }
        if line.starts_with("#[") || self.open {
            self.attributes.push_str(line);
            self.open = !line.ends_with(']');
            return true;
        }
        line.starts_with("// ")
    }

    fn doc(&self) -> String {
        let lines = self.docs.iter().take_while(|l| !l.starts_with("```"));
        lines.map(String::as_str).collect::<Vec<_>>().join(" ").trim().to_owned()
    }
}

fn fields(lines: &[&str]) -> Vec<Field> {
    let (mut head, mut found) = (Head::default(), Vec::new());
    for line in lines {
        if head.takes(line) {
            continue;
        }
        let code = line.trim().trim_start_matches("pub(crate) ").trim_start_matches("pub ");
        if let Some((name, ty)) = code.trim_end_matches(',').split_once(": ") {
            let (name, ty) = (name.to_owned(), ty.to_owned());
            found.push(Field { name, doc: head.doc(), serde: head.attributes.clone(), ty });
        }
        head = Head::default();
    }
    found
}

fn variants(lines: &[&str]) -> Vec<Variant> {
    let (mut head, mut found) = (Head::default(), Vec::new());
    let mut lines = lines.iter();
    while let Some(line) = lines.next() {
        if head.takes(line) {
            continue;
        }
        let code = line.trim().trim_end_matches(',');
        let end = code.find(|c: char| !c.is_alphanumeric()).unwrap_or(code.len());
        let (name, rest) = (code[..end].to_owned(), code[end..].trim());
        let payload = match rest {
            "" | "{}" => Payload::Nothing,
            "{" => {
                let inside: Vec<&str> =
                    lines.by_ref().take_while(|l| l.trim() != "},").copied().collect();
                Payload::Fields(fields(&inside))
            }
            _ if rest.starts_with('(') => Payload::Of(rest.trim_matches(['(', ')']).to_owned()),
            _ => Payload::Fields(
                split(rest.trim_matches(['{', '}']), ',')
                    .iter()
                    .flat_map(|f| fields(&[f]))
                    .collect(),
            ),
        };
        if !name.is_empty() {
            let (doc, serde) = (head.doc(), head.attributes.clone());
            let is_default = serde.contains("#[default]");
            found.push(Variant { name, doc, serde, is_default, payload });
        }
        head = Head::default();
    }
    found
}
