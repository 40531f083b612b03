//! What of a patch is compiled and was not: sources that no build is made of, and files that say how it is made. What is measured
//! then is the base's compiled code.

use crate::digest::Digest;
use crate::plan::{Ask, Found, Role, TreeOf};
use crate::step::context::{Context, glob_set};

/// Endings of files that a compiler reads.
const COMPILED: &[&str] = &[
    "c", "cc", "cpp", "cxx", "c++", "h", "hh", "hpp", "hxx", "inl", "cu", "cuh", "hip", "cl", "m", "mm", "s", "asm",
    "pyx", "pxd", "pxi", "rs", "go", "f", "f90", "f95", "zig", "metal",
];

/// Endings of what a compiler or a linker writes.
const BUILT: &[&str] = &[
    "so", "dylib", "dll", "pyd", "a", "lib", "o", "obj", "pyc", "pyo", "whl", "egg", "cubin", "fatbin", "ptx", "exe",
    "wasm",
];
/// How such files begin: ELF, Mach-O in its forms, an archive, PE.
const BEGINS: [&[u8]; 6] =
    [b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"!<arch>\n", b"MZ\x90\0"];

/// Whether a file of a patch is compiled code, by its name or by how it begins.
#[must_use]
pub fn is_binary(path: &str, begin: &[u8]) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_lowercase());
    let versioned = name.contains(".so.");
    versioned
        || ending.is_some_and(|ending| BUILT.contains(&ending.as_str()))
        || BEGINS.iter().any(|known| begin.starts_with(known))
}

/// Names of files that say how a package's compiled parts are built.
const SAYS_HOW: &[&str] = &[
    "setup.py",
    "setup.cfg",
    "pyproject.toml",
    "CMakeLists.txt",
    "meson.build",
    "meson_options.txt",
    "meson.options",
    "Makefile",
    "makefile",
    "GNUmakefile",
    "BUILD",
    "Cargo.toml",
    "build.rs",
];
/// Endings of others.
const SAYS_HOW_ENDINGS: &[&str] = &["cmake", "bazel", "bzl", "mk"];
/// Endings of files that nobody compiles, whatever stands before them: `test.c.py`, `notes.rs.md`.
const READ: &[&str] = &[
    "py", "pyi", "md", "rst", "txt", "json", "yaml", "yml", "toml", "html", "css", "js", "ts", "ipynb", "csv", "svg",
    "png", "orig", "rej", "patch", "diff", "log",
];

/// Whether a compiler reads a file, or reads what is made of it: `x.c`, and `x.c.src`, `x.pyx.tp` and `x.pxi.in` too.
fn is_source(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path).to_lowercase();
    let parts: Vec<&str> = name.split('.').skip(1).collect();
    let read = parts.last().is_some_and(|last| READ.contains(last));
    !read && parts.iter().any(|part| COMPILED.contains(part))
}

/// Whether a file says how compiled parts are built.
fn says_how(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    SAYS_HOW.contains(&name) || name.rsplit_once('.').is_some_and(|(_, end)| SAYS_HOW_ENDINGS.contains(&end))
}

/// The files among those of a patch that are compiled, or that say how, and that the environments of a classified job are not built
/// from. `base` is the job's base tree, `changes` the patch.
#[must_use]
pub fn unbuilt(context: &Context, node: usize, base: &str, changes: Digest, paths: &[String]) -> Vec<String> {
    let plan = &context.plan;
    let built = [Role::Rebuilt, Role::Environment].into_iter().find_map(|role| Some((plan.linked(node, &role)?, role)));
    let recipe = built.as_ref().and_then(|(up, _)| match &plan.nodes[*up].ask {
        Ask::Environment(ask) => ask.recipe.as_ref(),
        _ => None,
    });
    let Some(recipe) = recipe else { return paths.iter().filter(|path| is_source(path)).cloned().collect() };
    let patched = matches!(built, Some((_, Role::Rebuilt)));
    let found = plan.nodes[node].point.commit.and_then(|(repo, _)| {
        let tree = TreeOf { repo, base, changes: patched.then_some(changes) };
        plan.trees.get()?.find(tree, &recipe.cases).ok()
    });
    let (cases, listing) = match found {
        // What another case is built from says nothing of this tree.
        Some(Found::Case { case, listing }) => (recipe.cases.get(case..=case).unwrap_or_default(), Some(listing)),
        Some(Found::NoCase) => (&[][..], None),
        // Which was taken cannot be told today: only what each covers is covered for sure.
        None => (recipe.cases.as_slice(), None),
    };
    // A glob that is none was refused when the manifest was read.
    let Ok(globs) = cases.iter().map(|case| glob_set(&case.from)).collect::<Result<Vec<_>, _>>() else {
        return Vec::new();
    };
    // Where no step builds patched trees, what is built is the base.
    let covered = |path: &str| patched && !globs.is_empty() && globs.iter().all(|globs| globs.is_match(path));
    let compiles = || !recipe.overlay.is_empty() || listing.is_some_and(|listing| lists_sources(context, &listing));
    let missed: Vec<&String> = paths.iter().filter(|path| !covered(path)).collect();
    let how = missed.iter().any(|path| says_how(path)) && compiles();
    missed.into_iter().filter(|path| is_source(path) || (how && says_how(path))).cloned().collect()
}

/// Whether an environment is built of compiled sources, by the listing of its files.
fn lists_sources(context: &Context, listing: &Digest) -> bool {
    let listing = context.get(listing).unwrap_or_default();
    String::from_utf8_lossy(&listing).lines().any(|line| line.splitn(3, ' ').nth(2).is_some_and(is_source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_compiler_reads_in_the_end_is_a_source_whatever_it_is_made_by() {
        for path in
            ["a/x.c", "x.CU", "a/loops.c.src", "x.pyx.tp", "sparse.pxi.in", "k.cpp.jinja", "y.pyx.in", "h.h.inc"]
        {
            assert!(is_source(path), "{path}");
        }
        for path in ["a.py", "c", "a.c/b.py", "test.c.py", "notes.rs.md", "Makefile", "x.src", ".c.txt"] {
            assert!(!is_source(path), "{path}");
        }
        for path in
            ["setup.py", "a/CMakeLists.txt", "cmake/x.cmake", "BUILD", "a/BUILD.bazel", "meson.build", "build.rs"]
        {
            assert!(says_how(path), "{path}");
        }
        assert!(!says_how("setup.py/x.py") && !says_how("my_setup.py") && !says_how("a/BUILD.md"));
    }
}
