//! What of a patch is compiled and was not: sources that no build is made of. What is measured then is the base's compiled code.

use crate::plan::{Ask, Plan, Role};
use crate::step::context::glob_set;

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

/// The compiled sources among some paths of a patch that the environments of a classified job are not built from.
#[must_use]
pub fn unbuilt(plan: &Plan, node: usize, paths: &[String]) -> Vec<String> {
    let compiled = |path: &&String| {
        let ending =
            path.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map(|(_, ending)| ending.to_lowercase());
        ending.is_some_and(|ending| COMPILED.contains(&ending.as_str()))
    };
    let built = [Role::Rebuilt, Role::Environment].into_iter().find_map(|role| plan.linked(node, &role));
    let from: Vec<String> = match built.map(|up| &plan.nodes[up].ask) {
        Some(Ask::Environment(ask)) => {
            ask.recipe.iter().flat_map(|recipe| &recipe.cases).flat_map(|case| case.from.iter().cloned()).collect()
        }
        _ => Vec::new(),
    };
    // A glob that is none was refused when the manifest was read.
    let Ok(globs) = glob_set(&from) else { return Vec::new() };
    paths.iter().filter(compiled).filter(|path| !globs.is_match(path.as_str())).cloned().collect()
}
