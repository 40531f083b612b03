//! `docs/manifest.md` is what the reader's own table says. `UPDATE_DOCS=1` rewrites it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[test]
fn the_manual_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/manifest.md");
    let wanted = flow::manifest::reference();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/docs")).unwrap();
        std::fs::write(path, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(found == wanted, "docs/manifest.md is not current: UPDATE_DOCS=1 cargo test --test manifest_reference");
}
