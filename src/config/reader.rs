//! Reads TOML tables key by key and reports everything that does not fit, instead of stopping at the first.
//!
//! A [`Table`] may lie in several files at once: of a key that several of them set, the last one holds. Each key that
//! is asked for counts as known; [`Table::finish`] reports the others with the nearest known name.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Source;
use super::node::Node;
use super::problem::{Problem, Report, Spot};

/// One parsed file.
#[derive(Debug)]
pub(super) struct Document<'s> {
    source: usize,
    name: Arc<Path>,
    text: &'s str,
    /// Where each line but the first begins.
    lines: Vec<usize>,
    root: DeTable<'s>,
}

impl<'s> Document<'s> {
    /// Parses a file, reporting every syntax error. A file with one is not read any further: what its parser made of
    /// the rest would only give misleading problems.
    pub(super) fn parse(source: usize, file: &'s Source, report: &Report) -> Option<Self> {
        let (root, errors) = DeTable::parse_recoverable(&file.text);
        let lines = file.text.match_indices('\n').map(|(at, _)| at + 1).collect();
        let document = Self {
            source,
            name: file.name.as_path().into(),
            text: &file.text,
            lines,
            root: root.into_inner(),
        };
        let mut lines = Vec::new();
        for error in &errors {
            let spot = document.spot(error.span().map_or(0, |span| span.start), String::new());
            // One slip of the pen makes the parser stumble several times in its line.
            let line = spot.position.map(|(line, _)| line);
            if !lines.contains(&line) {
                lines.push(line);
                report.add(Problem::error(&spot, format!("not TOML: {}", error.message())));
            }
        }
        if !errors.is_empty() {
            report.incomplete();
            return None;
        }
        Some(document)
    }

    pub(super) fn spot(&self, offset: usize, path: String) -> Spot {
        let line = self.lines.partition_point(|start| *start <= offset);
        let start =
            line.checked_sub(1).and_then(|before| self.lines.get(before)).copied().unwrap_or_default();
        let column = self.text.get(start..offset).unwrap_or_default().chars().count();
        Spot {
            file: Arc::clone(&self.name),
            position: Some((line + 1, column + 1)),
            path,
            order: (self.source, offset),
        }
    }

    pub(super) fn name(&self) -> &Path {
        &self.name
    }
}

/// One table of one document.
#[derive(Clone, Copy, Debug)]
struct Layer<'a> {
    document: &'a Document<'a>,
    table: &'a DeTable<'a>,
}

/// A table, perhaps spread over several files.
#[derive(Debug)]
pub(super) struct Table<'a> {
    report: &'a Report,
    path: String,
    spot: Spot,
    layers: Vec<Layer<'a>>,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Table<'a> {
    /// The top level of all files together.
    pub(super) fn root(documents: &'a [Document<'a>], report: &'a Report) -> Self {
        let layers = documents.iter().map(|document| Layer { document, table: &document.root }).collect();
        // What is said of the whole is said at the main file: the first one that has more to it than products.
        let whole = |document: &&Document<'_>| document.root.keys().any(|key| key.get_ref() != "product");
        let main = documents.iter().find(whole).or(documents.last());
        let spot = main.map_or_else(
            || Spot::file(Path::new("pentad.toml"), 0),
            |document| Spot::file(&document.name, document.source),
        );
        Self { report, path: String::new(), spot, layers, known: RefCell::default() }
    }

    /// A table that stands as a value.
    pub(super) fn of(
        report: &'a Report,
        document: &'a Document<'a>,
        table: &'a DeTable<'a>,
        spot: Spot,
    ) -> Self {
        let path = spot.path.clone();
        Self { report, path, spot, layers: vec![Layer { document, table }], known: RefCell::default() }
    }

    pub(super) fn report(&self) -> &'a Report {
        self.report
    }

    /// Where the table itself stands.
    pub(super) fn spot(&self) -> Spot {
        self.spot.clone()
    }

    /// The file that the table stands in (the last one, when it is spread).
    pub(super) fn file(&self) -> &Path {
        &self.spot.file
    }

    /// A value by its key.
    pub(super) fn key(&self, key: &'static str) -> Entry<'a> {
        self.know(key);
        let node = self.layers.iter().rev().find_map(|layer| {
            find(*layer, key).map(|value| self.node(layer.document, value, self.join(key)))
        });
        let spot = match &node {
            Some(node) => node.spot(),
            None => Spot { path: self.join(key), ..self.spot.clone() },
        };
        Entry { report: self.report, node, spot }
    }

    /// A table below this one, laid over each other where several files have it. Absent when none has.
    pub(super) fn table(&self, key: &'static str) -> Option<Self> {
        self.know(key);
        let mut layers = Vec::new();
        let mut spot = None;
        for layer in &self.layers {
            if let Some(value) = find(*layer, key) {
                let node = self.node(layer.document, value, self.join(key));
                match value.get_ref() {
                    DeValue::Table(table) => {
                        layers.push(Layer { document: layer.document, table });
                        spot = Some(node.spot());
                    }
                    DeValue::String(_)
                    | DeValue::Integer(_)
                    | DeValue::Float(_)
                    | DeValue::Boolean(_)
                    | DeValue::Datetime(_)
                    | DeValue::Array(_) => node.wrong("a table"),
                }
            }
        }
        spot.map(|spot| Self {
            report: self.report,
            path: self.join(key),
            spot,
            layers,
            known: RefCell::default(),
        })
    }

    /// The tables of an array of tables, those of all files one after the other.
    pub(super) fn tables(&self, key: &'static str) -> Vec<Self> {
        self.know(key);
        let mut tables = Vec::new();
        for layer in &self.layers {
            if let Some(value) = find(*layer, key) {
                let node = self.node(layer.document, value, self.join(key));
                let items = node.list_or(&format!("a list of tables, as in [[{key}]]")).unwrap_or_default();
                tables.extend(items.into_iter().filter_map(|item| item.table()));
            }
        }
        tables
    }

    /// The tables of a key that has one table, or a list of them.
    pub(super) fn one_or_more(&self, key: &'static str) -> Vec<Self> {
        let is_list = self.key(key).node().is_some_and(Node::is_list);
        if is_list { self.tables(key) } else { self.table(key).into_iter().collect() }
    }

    /// Every pair of a table whose keys are the user's own.
    pub(super) fn pairs(&self) -> Vec<(&'a str, Node<'a>)> {
        let mut pairs = Vec::new();
        for layer in &self.layers {
            for (key, value) in layer.table {
                let key: &'a str = key.get_ref().as_ref();
                pairs.push((key, self.node(layer.document, value, self.join(key))));
            }
        }
        pairs
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(self) {
        let mut known = self.known.borrow().clone();
        known.sort_unstable();
        known.dedup();
        for layer in &self.layers {
            for key in layer.table.keys() {
                let name: &str = key.get_ref();
                if !known.contains(&name) {
                    let spot = layer.document.spot(key.span().start, self.join(&show_key(name)));
                    let problem = Problem::error(&spot, "unknown key").allowed(known.join(", "));
                    self.report.add(problem.meant(name, &known));
                }
            }
        }
    }

    fn node(&self, document: &'a Document<'a>, value: &'a Spanned<DeValue<'a>>, path: String) -> Node<'a> {
        Node::new(self.report, document, value, path)
    }

    fn join(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn know(&self, key: &'static str) {
        self.known.borrow_mut().push(key);
        let mut path = String::new();
        let mut index = false;
        for c in self.join(key).chars() {
            match c {
                '[' => index = true,
                ']' => index = false,
                _ if index => continue,
                _ => {}
            }
            path.push(c);
        }
        self.report.know(path);
    }
}

/// A key of a table with the value that it has, if it has one.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    report: &'a Report,
    node: Option<Node<'a>>,
    spot: Spot,
}

impl<'a> Entry<'a> {
    /// The same; reports when there is no value.
    pub(super) fn required(self, allowed: &str) -> Self {
        if self.node.is_none() {
            self.report.add(Problem::error(&self.spot, "missing").allowed(allowed));
        }
        self
    }

    /// The same, but its value is never shown.
    pub(super) fn secret(self) -> Self {
        Self { node: self.node.map(Node::secret), ..self }
    }

    pub(super) fn report(&self) -> &'a Report {
        self.report
    }

    /// Whether there is a value, right or wrong.
    pub(super) fn given(&self) -> bool {
        self.node.is_some()
    }

    /// Where the value stands, or the table that lacks it.
    pub(super) fn spot(&self) -> Spot {
        self.spot.clone()
    }

    /// The value, unread.
    pub(super) fn node(&self) -> Option<&Node<'a>> {
        self.node.as_ref()
    }

    /// Reads the value in one of the ways that [`Node`] offers; `None` when it is absent, or wrong and reported.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Node<'a>) -> Option<T>) -> Option<T> {
        self.node.as_ref().and_then(read)
    }
}

fn find<'a>(layer: Layer<'a>, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
    layer.table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
}

/// A key in a message: shortened, and quoted where it is not a bare one.
fn show_key(key: &str) -> String {
    if is_bare(key) && key.len() <= 40 {
        return key.to_owned();
    }
    let short: String = key.chars().take(40).collect();
    format!("{short:?}")
}

fn is_bare(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}
