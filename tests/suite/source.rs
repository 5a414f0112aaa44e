//! The files below `src/` as modules, with what they define, what they import and which paths they write.
//!
//! Read by `syn`, without types: what a name means follows from declarations and imports alone. Code for tests
//! (`#[cfg(test)]`) does not count. Methods are no paths: `tape.silu(x)` names no file.
#![allow(clippy::unwrap_used)]
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, UseTree, Visibility};

/// Names of modules from the root, and of what is in the last of them.
pub(crate) type Names = Vec<String>;

/// `use NAMES as ALIAS`; a glob ends in `*`.
#[derive(Clone, Debug)]
pub(crate) struct Use {
    pub(crate) names: Names,
    pub(crate) alias: String,
}

/// A function that other files may call.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) line: usize,
}

/// A file, or a module written inside one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Module {
    pub(crate) file: PathBuf,
    pub(crate) uses: Vec<Use>,
    /// Names of items, those that macros make excepted.
    pub(crate) defines: BTreeSet<String>,
    /// Paths of two names and more in code, macros included.
    pub(crate) paths: Vec<Names>,
    /// Functions that are visible outside, methods of traits excepted.
    pub(crate) functions: Vec<Function>,
    /// Every identifier in code, imports and the names of definitions excepted.
    pub(crate) words: BTreeSet<String>,
    /// Items beside declarations of modules and imports.
    pub(crate) items: usize,
    /// Of these, lists that a macro reads: they declare, too.
    pub(crate) lists: usize,
}

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// A module itself.
    Module,
    /// Something in a module.
    Item,
}

/// All modules, by their names from the root.
#[derive(Default)]
pub(crate) struct Source {
    pub(crate) modules: BTreeMap<Names, Module>,
    macros: BTreeMap<String, Names>,
}

/// Every Rust file below `folder`, with its text.
pub(crate) fn files(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    found.sort();
    found
}

impl Source {
    /// The library's sources.
    pub(crate) fn read() -> Self {
        let mut source = Self::default();
        for (path, text) in files(Path::new("src")) {
            let inside = path.strip_prefix("src").unwrap().with_extension("");
            let mut names: Names =
                inside.iter().map(|n| n.to_string_lossy().into_owned()).collect();
            match names.last().unwrap().as_str() {
                "main" => continue,
                "mod" | "lib" => drop(names.pop()),
                _ => {}
            }
            source.add(names, path, &text);
        }
        source
    }

    /// Adds a file.
    pub(crate) fn add(&mut self, names: Names, file: PathBuf, text: &str) {
        let parsed = syn::parse_file(text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        if !is_for_tests(&parsed.attrs) {
            self.module(names, &file, &parsed.items);
        }
    }

    fn module(&mut self, names: Names, file: &Path, items: &[Item]) {
        let mut reader = Reader::default();
        reader.module.file = file.to_owned();
        for item in items {
            reader.item(item);
        }
        for name in &reader.macros {
            self.macros.insert(name.clone(), names.clone());
        }
        self.modules.insert(names.clone(), reader.module);
        for (name, items) in reader.inline {
            self.module([&names[..], &[name]].concat(), file, &items);
        }
    }

    /// The file that defines the item that `path` names where module `at` writes it; none where that is of another
    /// package, or a module.
    pub(crate) fn file_of(&self, at: &Names, path: &[String]) -> Option<&Path> {
        let (names, Place::Item) = self.resolve(at, path, &mut BTreeSet::new())? else {
            return None;
        };
        Some(&self.modules[&names].file)
    }

    fn resolve(
        &self,
        at: &Names,
        path: &[String],
        seen: &mut BTreeSet<Names>,
    ) -> Option<(Names, Place)> {
        if !seen.insert([&at[..], &[":".into()], path].concat()) {
            return None;
        }
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => self.below(Names::new(), rest, seen),
            "self" => self.below(at.clone(), rest, seen),
            "super" => {
                let mut up = at.clone();
                up.pop();
                let supers = rest.iter().take_while(|n| *n == "super").count();
                up.truncate(up.len() - supers);
                self.below(up, &rest[supers..], seen)
            }
            _ if self.modules.contains_key(&[&at[..], &path[..1]].concat()) => {
                self.below(at.clone(), path, seen)
            }
            _ => self.imported(at, path, seen),
        }
    }

    /// What `path` names by an import of module `at`.
    fn imported(
        &self,
        at: &Names,
        path: &[String],
        seen: &mut BTreeSet<Names>,
    ) -> Option<(Names, Place)> {
        let uses = &self.modules[at].uses;
        let named = |u: &&Use| u.alias == path[0] && u.names[..] != path[..1];
        for found in uses.iter().filter(named) {
            let whole = [&found.names[..], &path[1..]].concat();
            if let Some(found) = self.resolve(at, &whole, seen) {
                return Some(found);
            }
        }
        for glob in uses.iter().filter(|u| u.alias == "*") {
            let folder = &glob.names[..glob.names.len() - 1];
            let Some((module, _)) = self.resolve(at, folder, seen) else { continue };
            if self.modules[&module].defines.contains(&path[0]) {
                return Some((module, Place::Item));
            }
        }
        None
    }

    /// What `path` names in module `at`.
    fn below(
        &self,
        mut at: Names,
        path: &[String],
        seen: &mut BTreeSet<Names>,
    ) -> Option<(Names, Place)> {
        for (i, name) in path.iter().enumerate() {
            let child = [&at[..], std::slice::from_ref(name)].concat();
            if self.modules.contains_key(&child) {
                at = child;
                continue;
            }
            let module = self.modules.get(&at)?;
            if name == "*" {
                let place = if module.items > 0 { Place::Item } else { Place::Module };
                return Some((at, place));
            }
            if module.defines.contains(name) {
                return Some((at, Place::Item));
            }
            if let Some(found) = self.imported(&at, &path[i..], seen) {
                return Some(found);
            }
            return match self.macros.get(name) {
                Some(module) if at.is_empty() => Some((module.clone(), Place::Item)),
                // Made by a macro.
                _ if module.items > 0 => Some((at, Place::Item)),
                _ => None,
            };
        }
        Some((at, Place::Module))
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|a| {
        a.path().is_ident("cfg") && a.parse_args::<syn::Path>().is_ok_and(|p| p.is_ident("test"))
    })
}

fn is_visible(visibility: &Visibility) -> bool {
    !matches!(visibility, Visibility::Inherited)
}

/// Attributes and name of an item, as far as it has them.
fn head(item: &Item) -> (&[Attribute], Option<String>) {
    match item {
        Item::Const(i) => (&i.attrs, Some(i.ident.to_string())),
        Item::Enum(i) => (&i.attrs, Some(i.ident.to_string())),
        Item::Fn(i) => (&i.attrs, Some(i.sig.ident.to_string())),
        Item::Impl(i) => (&i.attrs, None),
        Item::Macro(i) => (&i.attrs, i.ident.as_ref().map(ToString::to_string)),
        Item::Mod(i) => (&i.attrs, None),
        Item::Static(i) => (&i.attrs, Some(i.ident.to_string())),
        Item::Struct(i) => (&i.attrs, Some(i.ident.to_string())),
        Item::Trait(i) => (&i.attrs, Some(i.ident.to_string())),
        Item::Type(i) => (&i.attrs, Some(i.ident.to_string())),
        Item::Union(i) => (&i.attrs, Some(i.ident.to_string())),
        Item::Use(i) => (&i.attrs, None),
        _ => (&[], None),
    }
}

#[derive(Default)]
struct Reader {
    module: Module,
    macros: Vec<String>,
    inline: Vec<(String, Vec<Item>)>,
}

impl Reader {
    fn item(&mut self, item: &Item) {
        let (attributes, name) = head(item);
        if is_for_tests(attributes) {
            return;
        }
        match item {
            Item::Use(import) => return self.tree(&import.tree, &[]),
            Item::Mod(m) => {
                if let Some((_, items)) = &m.content {
                    self.inline.push((m.ident.to_string(), items.clone()));
                }
                return;
            }
            Item::Macro(m) if m.ident.is_some() => self.macros.extend(name.clone()),
            Item::Macro(_) => self.module.lists += 1,
            Item::Fn(f) if is_visible(&f.vis) => self.function(&f.sig),
            Item::Impl(i) if i.trait_.is_none() => {
                for member in &i.items {
                    match member {
                        syn::ImplItem::Fn(f) if is_visible(&f.vis) && !is_for_tests(&f.attrs) => {
                            self.function(&f.sig);
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        self.module.items += 1;
        self.module.defines.extend(name);
        self.visit_item(item);
    }

    fn function(&mut self, signature: &syn::Signature) {
        let line = signature.ident.span().start().line;
        self.module.functions.push(Function { name: signature.ident.to_string(), line });
    }

    fn tree(&mut self, tree: &UseTree, before: &[String]) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        let mut add = |names: Names, alias: String| self.module.uses.push(Use { names, alias });
        match tree {
            UseTree::Path(p) => self.tree(&p.tree, &with(&p.ident)),
            UseTree::Group(g) => g.items.iter().for_each(|t| self.tree(t, before)),
            UseTree::Name(n) if n.ident == "self" => {
                add(before.to_vec(), before.last().unwrap().clone());
            }
            UseTree::Name(n) => add(with(&n.ident), n.ident.to_string()),
            UseTree::Rename(r) if r.ident == "self" => add(before.to_vec(), r.rename.to_string()),
            UseTree::Rename(r) => add(with(&r.ident), r.rename.to_string()),
            UseTree::Glob(_) => add([before, &["*".into()]].concat(), "*".into()),
        }
    }

    /// Paths and words in what a macro or an attribute is given. Strings too: serde calls functions by them.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path = Names::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.path(std::mem::take(&mut path));
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(p) if p.as_char() == ':' => colons += 1,
                other => {
                    self.path(std::mem::take(&mut path));
                    colons = 0;
                    match other {
                        TokenTree::Group(group) => self.tokens(group.stream()),
                        TokenTree::Literal(text) => self.words_of(&text.to_string()),
                        _ => {}
                    }
                }
            }
        }
        self.path(path);
    }

    fn words_of(&mut self, text: &str) {
        if text.starts_with('"') && text.len() < 80 && !text.contains(' ') {
            let names = text.trim_matches('"').split("::").map(str::to_owned);
            self.path(names.collect());
        }
    }

    fn path(&mut self, names: Names) {
        self.module.words.extend(names.iter().cloned());
        if names.len() > 1 {
            self.module.paths.push(names);
        }
    }
}

impl<'a> Visit<'a> for Reader {
    fn visit_item(&mut self, item: &'a Item) {
        if !is_for_tests(head(item).0) {
            visit::visit_item(self, item);
        }
    }

    /// Inside a function.
    fn visit_item_use(&mut self, import: &'a syn::ItemUse) {
        self.tree(&import.tree, &[]);
    }

    fn visit_impl_item_fn(&mut self, f: &'a syn::ImplItemFn) {
        if !is_for_tests(&f.attrs) {
            visit::visit_impl_item_fn(self, f);
        }
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        self.path(path.segments.iter().map(|s| s.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_expr_method_call(&mut self, call: &'a syn::ExprMethodCall) {
        self.module.words.insert(call.method.to_string());
        visit::visit_expr_method_call(self, call);
    }

    fn visit_macro(&mut self, call: &'a syn::Macro) {
        self.tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }

    fn visit_attribute(&mut self, attribute: &'a Attribute) {
        if let syn::Meta::List(list) = &attribute.meta {
            self.tokens(list.tokens.clone());
        }
    }
}
