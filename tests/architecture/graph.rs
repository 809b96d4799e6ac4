//! Which file of `src/` names which: paths and imports are parsed, and followed through the re-exports of a
//! folder's `mod.rs` to the file that defines what is named.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use syn::visit::{self, Visit};

/// The path of a module below the crate: `["gate", "call"]`.
type ModulePath = Vec<String>;

/// A file as a module.
pub(crate) struct Module {
    /// Its file below `src/`.
    pub(crate) file: String,
    /// What `pub use` gives another name here: the name, and the path behind it.
    exports: BTreeMap<String, Vec<String>>,
    /// What production code names.
    named: Vec<Vec<String>>,
    /// What tests name.
    named_in_tests: Vec<Vec<String>>,
}

/// All modules.
pub(crate) struct Graph(BTreeMap<ModulePath, Module>);

impl Graph {
    /// Of the files below `root`, whose crate is `src/lib.rs`.
    pub(crate) fn read(root: &Path) -> Self {
        let mut modules = BTreeMap::new();
        read_module(root, &root.join("lib.rs"), &[], false, &mut modules);
        Self(modules)
    }

    /// The files and folders that lie side by side in a folder and form a circle, each circle as
    /// `folder: a b c`. A `mod.rs` is the folder's front, and stands in no circle of it.
    pub(crate) fn circles(&self, with_tests: bool) -> Vec<String> {
        let mut folders: BTreeMap<String, BTreeSet<(String, String)>> = BTreeMap::new();
        for (from, to) in self.edges(with_tests) {
            let (from, to): (Vec<&str>, Vec<&str>) =
                (from.split('/').collect(), to.split('/').collect());
            let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
            let (Some(a), Some(b)) = (from.get(shared), to.get(shared)) else { continue };
            let (a, b) = (a.trim_end_matches(".rs"), b.trim_end_matches(".rs"));
            if a != b && ![a, b].iter().any(|name| ["mod", "lib", "main"].contains(name)) {
                let folder = folders.entry(from[..shared].join("/")).or_default();
                folder.insert((a.to_owned(), b.to_owned()));
            }
        }
        folders.iter().flat_map(|(folder, edges)| circles_of(folder, edges)).collect()
    }

    /// Each pair of files of which the first names the second; with tests, if `with_tests`.
    pub(crate) fn edges(&self, with_tests: bool) -> BTreeSet<(String, String)> {
        let mut edges = BTreeSet::new();
        for (at, module) in &self.0 {
            let tests = module.named_in_tests.iter().filter(|_| with_tests);
            for path in module.named.iter().chain(tests) {
                if let Some(target) = self.resolve(at, path, 0)
                    && let Some(target) = self.0.get(&target)
                    && target.file != module.file
                {
                    edges.insert((module.file.clone(), target.file.clone()));
                }
            }
        }
        edges
    }

    /// The module that defines what `path`, written in the module `at`, names.
    fn resolve(&self, at: &[String], path: &[String], depth: usize) -> Option<ModulePath> {
        if depth > 16 {
            return None;
        }
        let (mut module, mut rest) = match path.first()?.as_str() {
            "crate" => (Vec::new(), &path[1..]),
            "self" => (at.to_vec(), &path[1..]),
            "super" => (at[..at.len().checked_sub(1)?].to_vec(), &path[1..]),
            _ => (at.to_vec(), path),
        };
        while let Some(name) = rest.first() {
            if name == "super" {
                module.pop()?;
                rest = &rest[1..];
                continue;
            }
            let mut child = module.clone();
            child.push(name.clone());
            if self.0.contains_key(&child) {
                (module, rest) = (child, &rest[1..]);
                continue;
            }
            let here = self.0.get(&module)?;
            if let Some(export) = here.exports.get(name) {
                let path: Vec<String> = export.iter().chain(&rest[1..]).cloned().collect();
                if path.as_slice() != rest || export.first().is_some_and(|first| first != name) {
                    return self.resolve(&module, &path, depth + 1);
                }
            }
            return Some(module);
        }
        Some(module)
    }
}

fn circles_of(folder: &str, edges: &BTreeSet<(String, String)>) -> Vec<String> {
    let reached = |from: &str| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from.to_owned()]);
        while let Some(at) = open.pop() {
            for (_, to) in edges.iter().filter(|(from, _)| *from == at) {
                if seen.insert(to.clone()) {
                    open.push(to.clone());
                }
            }
        }
        seen
    };
    let names: BTreeSet<&String> = edges.iter().flat_map(|(from, to)| [from, to]).collect();
    let reach: BTreeMap<&str, BTreeSet<String>> =
        names.iter().map(|name| (name.as_str(), reached(name))).collect();
    let mut circles = BTreeSet::new();
    for (name, seen) in reach.iter().filter(|(name, seen)| seen.contains(**name)) {
        let circle = seen.iter().filter(|other| reach[other.as_str()].contains(*name));
        circles.insert(circle.map(String::as_str).collect::<Vec<_>>().join(" "));
    }
    circles.into_iter().map(|circle| format!("{folder}: {circle}")).collect()
}

fn read_module(
    root: &Path,
    file: &Path,
    at: &[String],
    is_test: bool,
    modules: &mut BTreeMap<ModulePath, Module>,
) {
    let text =
        fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let parsed =
        syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let name = file.file_name().and_then(|name| name.to_str()).unwrap();
    let folder = match name {
        "lib.rs" | "mod.rs" => file.parent().unwrap().to_owned(),
        _ => file.with_extension(""),
    };
    let mut reader = Reader { is_test, ..Reader::default() };
    reader.visit_file(&parsed);
    let path = file.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
    let Reader { exports, named, named_in_tests, children, .. } = reader;
    modules.insert(at.to_vec(), Module { file: path, exports, named, named_in_tests });
    for (child, is_test_child, place) in children {
        let mut below = at.to_vec();
        below.push(child.clone());
        let flat = match place {
            Some(place) => file.with_file_name(place),
            None => folder.join(format!("{child}.rs")),
        };
        let file = if flat.exists() { flat } else { folder.join(&child).join("mod.rs") };
        read_module(root, &file, &below, is_test || is_test_child, modules);
    }
}

#[derive(Default)]
struct Reader {
    is_test: bool,
    exports: BTreeMap<String, Vec<String>>,
    named: Vec<Vec<String>>,
    named_in_tests: Vec<Vec<String>>,
    /// Modules in files of their own, whether they are for tests, and the file if it has another name.
    children: Vec<(String, bool, Option<String>)>,
    /// How deep in modules that are written here.
    inside: usize,
}

impl Reader {
    fn name(&mut self, mut path: Vec<String>) {
        // A module that is written here is this file.
        let outwards = path.iter().take(self.inside).take_while(|name| *name == "super").count();
        if outwards > 0 {
            path.splice(..outwards, ["self".to_owned()]);
        }
        if self.is_test { self.named_in_tests.push(path) } else { self.named.push(path) }
    }

    fn import(&mut self, prefix: &[String], tree: &syn::UseTree, is_public: bool) {
        let mut path = prefix.to_vec();
        match tree {
            syn::UseTree::Path(one) => {
                path.push(one.ident.to_string());
                self.import(&path, &one.tree, is_public);
            }
            syn::UseTree::Group(group) => {
                for one in &group.items {
                    self.import(prefix, one, is_public);
                }
            }
            syn::UseTree::Glob(_) => self.name(path),
            syn::UseTree::Name(syn::UseName { ident }) => {
                let name = ident.to_string();
                if name != "self" {
                    path.push(name);
                }
                self.named_here(path, is_public, None);
            }
            syn::UseTree::Rename(one) => {
                if one.ident != "self" {
                    path.push(one.ident.to_string());
                }
                self.named_here(path, is_public, Some(one.rename.to_string()));
            }
        }
    }

    fn named_here(&mut self, path: Vec<String>, is_public: bool, rename: Option<String>) {
        let name = rename.or_else(|| path.last().cloned());
        if let (true, 0, Some(name)) = (is_public, self.inside, name) {
            self.exports.insert(name, path.clone());
        }
        self.name(path);
    }
}

fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.meta.require_list().is_ok_and(|list| {
                list.tokens.clone().into_iter().any(|token| token.to_string() == "test")
            })
    })
}

fn path_of(attribute: &syn::Attribute) -> Option<String> {
    let value = &attribute.meta.require_name_value().ok()?.value;
    match value {
        syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. })
            if attribute.path().is_ident("path") =>
        {
            Some(text.value())
        }
        _ => None,
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        let is_test = is_for_tests(&module.attrs);
        if module.content.is_none() {
            let place = module.attrs.iter().find_map(path_of);
            self.children.push((module.ident.to_string(), is_test, place));
            return;
        }
        let before = self.is_test;
        self.is_test |= is_test;
        self.inside += 1;
        visit::visit_item_mod(self, module);
        self.inside -= 1;
        self.is_test = before;
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let is_public = !matches!(item.vis, syn::Visibility::Inherited);
        self.import(&[], &item.tree, is_public);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|one| one.ident.to_string()).collect();
        if names.len() > 1 {
            self.name(names);
        }
        visit::visit_path(self, path);
    }
}
