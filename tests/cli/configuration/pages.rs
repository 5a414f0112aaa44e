//! The schema and the page of all keys, made of the definitions.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::json::{Json, text};
use super::reader::{Body, Definition, Field, Payload, Source, Variant, has, serde_name, word_of};

/// The sections of both kinds of run: where they are defined, and what they are called.
pub(crate) const ROOTS: [(&str, &str); 2] = [
    ("training::sections", "super-resolution"),
    ("training::tasks::teaching", "GANs, VAEs and DDPM to learn from"),
];

/// The network that is not written by hand.
const OPAQUE: &str = "GraphConfig";

fn root<'a>(source: &'a Source, module: &str) -> &'a Definition {
    source
        .all
        .iter()
        .find(|d| d.name == "Config" && d.module == module)
        .expect("the sections are there")
}

/// Comments as they read outside the source: links to items are their names.
fn prose(doc: &str) -> String {
    let (mut out, mut rest) = (String::new(), doc);
    while let Some(open) = rest.find('[') {
        let inside = &rest[open + 1..];
        let close = inside.find(']').unwrap_or(inside.len().saturating_sub(1));
        let after = &inside[(close + 1).min(inside.len())..];
        let is_code = inside.starts_with('`');
        out.push_str(&rest[..open]);
        match (after.strip_prefix('(').and_then(|a| a.find(')')), is_code) {
            (Some(end), _) => {
                out.push_str(&inside[..close]);
                rest = &after[end + 2..];
            }
            (None, true) => {
                out.push_str(&inside[..close]);
                rest = after;
            }
            (None, false) => {
                out.push('[');
                rest = inside;
            }
        }
    }
    out + rest
}

/// The definition's key among those of the schema.
fn key(definition: &Definition) -> String {
    format!("{}.{}", definition.module.replace("::", "."), definition.name)
}

/// The JSON Schema of all configurations.
pub(crate) fn schema(source: &Source) -> String {
    let mut made = Schema { source, wanted: Vec::new(), seen: BTreeSet::new() };
    let roots: Vec<Json> =
        ROOTS.iter().map(|(module, _)| made.refer(root(source, module))).collect();
    let mut definitions = Vec::new();
    while let Some(definition) = made.wanted.pop() {
        definitions.push((key(definition), made.of(definition)));
    }
    definitions.sort_by(|a, b| a.0.cmp(&b.0));
    Json::Object(vec![
        ("$schema".into(), text("https://json-schema.org/draft/2020-12/schema")),
        ("title".into(), text("A run of srk train")),
        ("anyOf".into(), Json::List(roots)),
        ("$defs".into(), Json::Object(definitions)),
    ])
    .pretty()
}

struct Schema<'a> {
    source: &'a Source,
    wanted: Vec<&'a Definition>,
    seen: BTreeSet<String>,
}

type Entries = Vec<(String, Json)>;

impl<'a> Schema<'a> {
    fn refer(&mut self, definition: &'a Definition) -> Json {
        let key = key(definition);
        let place = format!("#/$defs/{key}");
        if self.seen.insert(key) {
            self.wanted.push(definition);
        }
        Json::Object(vec![("$ref".into(), text(place))])
    }

    fn of(&mut self, definition: &'a Definition) -> Json {
        let mut entries: Entries = vec![("description".into(), text(prose(&definition.doc)))];
        match (&definition.body, definition.name.as_str()) {
            (_, "Augment") => {
                let changes = self.source.find("Changes", &definition.module).expect("it is there");
                let changes = self.refer(changes);
                entries.push(("anyOf".into(), Json::List(vec![typed("boolean"), changes])));
            }
            (_, OPAQUE) => entries.push(("type".into(), text("object"))),
            (Body::Struct(fields), _) => entries.extend(self.object(definition, fields, None)),
            (Body::Enum(variants), _) => {
                let of = |made: &mut Self, v: &'a Variant| made.variant(definition, v);
                let all: Vec<Json> = variants.iter().flat_map(|v| of(self, v)).collect();
                entries.push(("oneOf".into(), Json::List(all)));
            }
        }
        Json::Object(entries)
    }

    /// The entries of an object of `fields`, and of `tag`, which tells a variant.
    fn object(
        &mut self,
        of: &'a Definition,
        fields: &'a [Field],
        tag: Option<(String, String)>,
    ) -> Entries {
        let (mut properties, mut required) = (Entries::new(), Vec::new());
        if let Some((tag, name)) = tag {
            required.push(text(tag.as_str()));
            properties.push((tag, Json::Object(vec![("const".into(), text(name))])));
        }
        // What is left out comes from the preset.
        let filled_in = of.serde.contains("remote");
        for field in fields {
            let mut entries: Entries = vec![("description".into(), text(prose(&field.doc)))];
            if let Json::Object(ty) = self.ty(&field.ty, &of.module) {
                entries.extend(ty);
            }
            let default = self.source.default_in(of, field);
            if default.is_none() && !filled_in && !is_optional(of, field) {
                required.push(text(field.name.as_str()));
            }
            entries.extend(default.filter(|d| *d != Json::Null).map(|d| ("default".into(), d)));
            properties.push((field.name.clone(), Json::Object(entries)));
        }
        let mut entries: Entries = vec![("type".into(), text("object"))];
        entries.push(("properties".into(), Json::Object(properties)));
        if !required.is_empty() {
            entries.push(("required".into(), Json::List(required)));
        }
        entries.push(("additionalProperties".into(), Json::Bool(false)));
        entries
    }

    fn variant(&mut self, of: &'a Definition, variant: &'a Variant) -> Vec<Json> {
        let doc = ("description".to_owned(), text(prose(&variant.doc)));
        if of.name == "Best" && variant.name == "No" {
            return vec![Json::Object(vec![doc, ("const".into(), Json::Bool(false))])];
        }
        let names = names(of, variant);
        let tag = word_of(&of.serde, "tag");
        let mut all = Vec::new();
        for name in names {
            let mut entries = vec![doc.clone()];
            match (&tag, &variant.payload) {
                (None, _) => entries.push(("const".into(), text(name))),
                (Some(tag), Payload::Nothing) => {
                    entries.extend(self.object(of, &[], Some((tag.clone(), name))));
                }
                (Some(tag), Payload::Fields(fields)) => {
                    entries.extend(self.object(of, fields, Some((tag.clone(), name))));
                }
                (Some(tag), Payload::Of(inner)) => {
                    let inner = self.source.find(inner, &of.module).expect("it is defined");
                    let Body::Struct(fields) = &inner.body else { continue };
                    if inner.name == OPAQUE {
                        let kind = Json::Object(vec![("const".into(), text(name))]);
                        entries.push(("type".into(), text("object")));
                        entries
                            .push(("properties".into(), Json::Object(vec![(tag.clone(), kind)])));
                        entries.push(("required".into(), Json::List(vec![text(tag.as_str())])));
                    } else {
                        entries.extend(self.object(inner, fields, Some((tag.clone(), name))));
                    }
                }
            }
            all.push(Json::Object(entries));
        }
        all
    }

    fn ty(&mut self, ty: &str, module: &str) -> Json {
        let inner = |outer: &str| ty.strip_prefix(outer).and_then(|t| t.strip_suffix('>'));
        if let Some(inner) = inner("Option<").or_else(|| inner("Box<")) {
            return self.ty(inner, module);
        }
        if let Some(inner) = inner("Vec<") {
            let items = self.ty(inner, module);
            return Json::Object(vec![("type".into(), text("array")), ("items".into(), items)]);
        }
        if let Some(inner) = inner("BTreeMap<String, ") {
            let items = self.ty(inner, module);
            return Json::Object(vec![
                ("type".into(), text("object")),
                ("additionalProperties".into(), items),
            ]);
        }
        if let Some((inner, n)) =
            ty.strip_prefix('[').and_then(|t| t.strip_suffix(']')?.split_once("; "))
        {
            let items = self.ty(inner, module);
            let n = Json::Number(n.to_owned());
            return Json::Object(vec![
                ("type".into(), text("array")),
                ("items".into(), items),
                ("minItems".into(), n.clone()),
                ("maxItems".into(), n),
            ]);
        }
        match ty {
            "bool" => typed("boolean"),
            "f64" | "f32" => typed("number"),
            "String" | "PathBuf" => typed("string"),
            "i64" => typed("integer"),
            "usize" | "u64" | "u32" => Json::Object(vec![
                ("type".into(), text("integer")),
                ("minimum".into(), Json::Number("0".into())),
            ]),
            _ => match self.source.find(ty, module) {
                Some(definition) => self.refer(definition),
                None => {
                    panic!("{module} has a field of the type {ty}, which the reader does not know")
                }
            },
        }
    }
}

fn typed(name: &str) -> Json {
    Json::Object(vec![("type".into(), text(name))])
}

/// All names of a variant.
fn names(of: &Definition, variant: &Variant) -> Vec<String> {
    if of.name == "Best" {
        return vec![best(&variant.name)];
    }
    let alias = word_of(&variant.serde, "alias");
    [serde_name(of, variant)].into_iter().chain(alias).collect()
}

fn is_optional(of: &Definition, field: &Field) -> bool {
    let given = has(&field.serde, "default") || word_of(&field.serde, "default").is_some();
    given || field.ty.starts_with("Option<") || has(&of.serde, "default")
}

/// The page of all keys.
pub(crate) fn page(source: &Source) -> String {
    let mut page = Page { source, out: String::new(), told: BTreeMap::new() };
    page.out.push_str(HEAD);
    for (module, title) in ROOTS {
        let _ = write!(page.out, "\n# Runs of {title}\n");
        let config = root(source, module);
        let Body::Struct(sections) = &config.body else { continue };
        for section in sections {
            page.section(&section.name, config, section);
        }
    }
    page.out
}

const HEAD: &str = "# Every key of a configuration

This page is made of the source (`tests/cli/configuration/`); `SRK_WRITE=1 cargo test --release --test cli configuration::` makes it
anew after a change there. `srk train --schema` prints the same as a JSON Schema, `srk train --init NAME` a recipe to start
from. `--set data.train.crop=256` changes a key for one run. Counts may be written as `400000`, `400_000` or
`4e5`.
";

struct Page<'a> {
    source: &'a Source,
    out: String,
    /// Where definitions were written out.
    told: BTreeMap<String, String>,
}

impl Page<'_> {
    /// A section under its dotted `name`, and those below it.
    fn section(&mut self, name: &str, of: &Definition, field: &Field) {
        let ty = field.ty.trim_start_matches("Option<").trim_end_matches('>');
        let Some(definition) = self.source.find(ty, &of.module) else { return };
        let mut doc = prose(&field.doc);
        if word_of(&field.serde, "default").is_some() {
            let default = self.source.default_in(of, field).map_or_else(String::new, |d| shown(&d));
            let _ = write!(doc, " Left out, it is {default}.");
        }
        let _ = write!(self.out, "\n## `[{name}]`\n\n{doc}\n");
        self.inside(name, definition);
    }

    fn inside(&mut self, name: &str, definition: &Definition) {
        if let Some(first) = self.told.get(&key(definition)) {
            let _ = write!(self.out, "\nAs `[{first}]` above.\n");
            return;
        }
        self.told.insert(key(definition), name.to_owned());
        match &definition.body {
            Body::Struct(fields) => {
                self.table(definition, fields);
                self.choices(name, definition, fields);
                self.below(name, definition, fields);
            }
            Body::Enum(variants) => self.kinds(name, definition, variants),
        }
    }

    /// A heading for each variant that has keys of its own.
    fn kinds(&mut self, name: &str, definition: &Definition, variants: &[Variant]) {
        let tag = word_of(&definition.serde, "tag").unwrap_or_default();
        for variant in variants {
            let called = serde_name(definition, variant);
            let _ = write!(
                self.out,
                "\n### `{name}.{tag} = \"{called}\"`\n\n{}\n",
                prose(&variant.doc)
            );
            match &variant.payload {
                Payload::Nothing => {}
                Payload::Fields(fields) => {
                    self.table(definition, fields);
                    self.choices(name, definition, fields);
                    self.below(name, definition, fields);
                }
                Payload::Of(inner) => {
                    let inner = self.source.find(inner, &definition.module).expect("it is defined");
                    if inner.name == OPAQUE {
                        self.out.push_str(
                            "\nIts layers are those of a file; they are not written by hand.\n",
                        );
                    } else {
                        self.inside(name, inner);
                    }
                }
            }
        }
    }

    fn table(&mut self, of: &Definition, fields: &[Field]) {
        let rows: Vec<&Field> = fields.iter().filter(|f| !self.is_section(of, f)).collect();
        if rows.is_empty() {
            return;
        }
        self.out.push_str("\n| key | type | default | meaning |\n|---|---|---|---|\n");
        let preset = of.serde.contains("remote");
        for field in rows {
            let default = match self.source.default_in(of, field) {
                Some(Json::Null) => "none".to_owned(),
                Some(value) => format!("`{}`", value.plain()),
                None if preset && field.name == "preset" => "`\"real-esrgan\"`".to_owned(),
                None if preset => "the preset's".to_owned(),
                None => "required".to_owned(),
            };
            let ty = self.ty(&field.ty, &of.module);
            let meaning = prose(&field.doc).replace('|', "\\|");
            let _ = writeln!(self.out, "| `{}` | {ty} | {default} | {meaning} |", field.name);
        }
    }

    /// Lists of what a name may be, for keys that are one.
    fn choices(&mut self, name: &str, of: &Definition, fields: &[Field]) {
        for field in fields {
            let ty = field.ty.trim_start_matches("Vec<").trim_end_matches('>');
            let Some(definition) = self.source.find(ty, &of.module) else { continue };
            let Body::Enum(variants) = &definition.body else { continue };
            if word_of(&definition.serde, "tag").is_some() || definition.name == "Augment" {
                continue;
            }
            let _ = write!(self.out, "\n`{name}.{}`:\n\n", field.name);
            for variant in variants {
                let called = match (definition.name.as_str(), variant.name.as_str()) {
                    ("Best", "No") => "false".to_owned(),
                    _ => names(definition, variant).join("`, `"),
                };
                let _ = writeln!(self.out, "- `{called}`: {}", prose(&variant.doc));
            }
        }
    }

    /// The sections inside a section.
    fn below(&mut self, name: &str, of: &Definition, fields: &[Field]) {
        let sections: Vec<&Field> = fields.iter().filter(|f| self.is_section(of, f)).collect();
        for field in sections {
            self.section(&format!("{name}.{}", field.name), of, field);
        }
        for field in fields {
            let inner =
                field.ty.strip_prefix("BTreeMap<String, ").and_then(|t| t.strip_suffix('>'));
            let Some(inner) = inner.and_then(|inner| self.source.find(inner, &of.module)) else {
                continue;
            };
            let name = format!("{name}.{}.NAME", field.name);
            let _ = write!(self.out, "\n## `[{name}]`\n\n{}\n", prose(&field.doc));
            self.inside(&name, inner);
        }
        if let Some(augment) = fields.iter().find(|f| f.ty == "Augment") {
            let changes = self.source.find("Changes", "data::augment").expect("it is there");
            let name = format!("{name}.{}", augment.name);
            let _ = write!(self.out, "\n## `[{name}]`\n\n{}\n", prose(&changes.doc));
            self.inside(&name, changes);
        }
    }

    /// Whether a field is a section and not a value.
    fn is_section(&self, of: &Definition, field: &Field) -> bool {
        let ty = field.ty.trim_start_matches("Option<").trim_end_matches('>');
        self.source.find(ty, &of.module).is_some_and(|d| match &d.body {
            Body::Struct(_) => !ty.starts_with("Vec"),
            Body::Enum(_) => word_of(&d.serde, "tag").is_some(),
        })
    }

    fn ty(&self, ty: &str, module: &str) -> String {
        let inner = |outer: &str| ty.strip_prefix(outer).and_then(|t| t.strip_suffix('>'));
        if let Some(inner) = inner("Option<") {
            return self.ty(inner, module);
        }
        if let Some(inner) = inner("Vec<") {
            return format!("list of {}", self.ty(inner, module));
        }
        if let Some(inner) = inner("BTreeMap<String, ") {
            let of = if inner == "String" { "texts" } else { "sections" };
            return format!("{of} by name");
        }
        if let Some((inner, n)) =
            ty.strip_prefix('[').and_then(|t| t.strip_suffix(']')?.split_once("; "))
        {
            return format!("{n} of {}", self.ty(inner, module));
        }
        match ty {
            "bool" => "true or false".into(),
            "f64" | "f32" => "number".into(),
            "usize" | "u64" | "u32" => "count".into(),
            "String" => "text".into(),
            "PathBuf" => "path".into(),
            "Augment" => "true, false or section".into(),
            "Best" => "name or false".into(),
            _ => match self.source.find(ty, module) {
                Some(Definition { body: Body::Enum(_), .. }) => "name".into(),
                _ => "section".into(),
            },
        }
    }
}

fn shown(value: &Json) -> String {
    match value {
        Json::Object(entries) => {
            let entry = |(key, value): &(String, Json)| format!("`{key} = {}`", value.plain());
            entries.iter().map(entry).collect::<Vec<_>>().join(", ")
        }
        other => format!("`{}`", other.plain()),
    }
}

/// The name of a measure: `psnr_y` for `PsnrY`.
fn best(variant: &str) -> String {
    let mut name = String::new();
    for (i, c) in variant.chars().enumerate() {
        if c.is_uppercase() && i > 0 {
            name.push('_');
        }
        name.extend(c.to_lowercase());
    }
    name
}
