//! What the documents say of the tests is true: each test that `docs/reliability.md` names is there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Rows of the table of faults.
const FAULTS: usize = 28;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests are a member of the workspace")
}

/// Cells of each row that begins with a number.
fn rows(text: &str) -> Vec<(usize, Vec<String>)> {
    let row = |line: &str| {
        let cells: Vec<_> = line
            .trim_matches('|')
            .split(" | ")
            .map(|cell| cell.trim().to_owned())
            .collect();
        let number = cells.first()?.parse().ok()?;
        Some((number, cells))
    };
    text.lines()
        .filter(|line| line.starts_with("| "))
        .filter_map(row)
        .collect()
}

/// What stands between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Sources in which a test with this path may stand: a crate's for one that begins with a crate's name, else ours.
fn sources(path: &[&str]) -> PathBuf {
    match path.first() {
        Some(name) if name.starts_with("embeddables_") => root().join("crates").join(name.replace('_', "-")),
        _ => root().join("tests/it"),
    }
}

/// Whether a file below `folder` with `module` in its path holds a test of that name.
fn holds(folder: &Path, module: &str, test: &str) -> bool {
    let entries = folder
        .read_dir()
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.flatten().map(|entry| entry.path()).any(|path| {
        if path.is_dir() {
            return holds(&path, module, test);
        }
        let is_meant = path.components().any(|part| {
            let name = part.as_os_str().to_string_lossy();
            name == module || name == format!("{module}.rs")
        });
        let text = || std::fs::read_to_string(&path).unwrap_or_default();
        is_meant && path.extension().is_some_and(|end| end == "rs") && text().contains(&format!("fn {test}"))
    })
}

#[test]
fn every_fault_has_its_row_and_every_test_it_names_is_there() {
    let text = std::fs::read_to_string(root().join("docs/reliability.md")).expect("the document");
    let rows = rows(&text);
    let numbers: BTreeSet<_> = rows.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (1..=FAULTS).collect(), "a row a fault");
    for (number, cells) in rows {
        let [_, fault, tests] = &cells[..] else {
            panic!("row {number} has other cells than number, fault, test: {cells:?}");
        };
        let named = quoted(tests);
        assert!(
            !fault.is_empty() && (!named.is_empty() || tests == "not yet"),
            "row {number}: {tests}"
        );
        for name in named {
            let path: Vec<_> = name.split("::").collect();
            let [.., module, test] = path[..] else {
                panic!("row {number}: {name} is no path");
            };
            let folder = sources(&path);
            assert!(holds(&folder, module, test), "row {number}: there is no {name}");
        }
    }
}
