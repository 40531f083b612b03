//! `caches` of a test: which compile caches its processes keep, and by which variable each is moved.
//!
//! The one table of those that have a name. What becomes of them is the test step's business.

use super::flaw::{Draft, Report};
use super::node::Node;
use super::{Cache, Env, Place, Spanned};

/// Caches that have a name, and the variable by which their owner is told where they are.
const KNOWN: [(&str, &str); 10] = [
    ("cuda", "CUDA_CACHE_PATH"),
    ("cupy", "CUPY_CACHE_DIR"),
    ("flashinfer", "FLASHINFER_WORKSPACE_BASE"),
    ("inductor", "TORCHINDUCTOR_CACHE_DIR"),
    ("jax", "JAX_COMPILATION_CACHE_DIR"),
    ("numba", "NUMBA_CACHE_DIR"),
    ("torch-extensions", "TORCH_EXTENSIONS_DIR"),
    ("torch-kernels", "PYTORCH_KERNEL_CACHE_PATH"),
    ("triton", "TRITON_CACHE_DIR"),
    ("vllm", "VLLM_CACHE_ROOT"),
];

/// Their names.
pub(super) const NAMES: [&str; KNOWN.len()] = {
    let mut names = [""; KNOWN.len()];
    let mut at = 0;
    while at < KNOWN.len() {
        names[at] = KNOWN[at].0;
        at += 1;
    }
    names
};

/// What every process has of flow's own besides what no manifest may name: a cache would take its place.
const OWN: [&str; 5] = ["HOME", "LANG", "PATH", "TMPDIR", "TZ"];

/// Builds the caches of a `caches` node, by name; `env` is what else the step gives its processes.
pub(super) fn caches(node: Node<'_>, env: &Env, report: &Report) -> Vec<Cache> {
    let known = |name: &str| KNOWN.iter().find(|(known, _)| *known == name).map(|(_, variable)| (*variable).to_owned());
    let mut caches: Vec<(Cache, Place)> = Vec::new();
    for entry in node.entries() {
        let place = entry.place();
        let (name, variable) = match entry.key() {
            None => {
                let Some(name) = entry.str() else { continue };
                // The grammar has refused names that are not known.
                let Some(variable) = known(name) else { continue };
                (name.to_owned(), Spanned { value: variable, place })
            }
            Some(name) => {
                if let Some(variable) = known(name) {
                    report.add(
                        Draft::new("known-cache", place, format!("where `{name}` keeps its files is known"))
                            .label(format!("it is {variable}"))
                            .help(format!("write `caches {name}`, or choose another name")),
                    );
                    continue;
                }
                let Some(variable) = entry.str() else { continue };
                (name.to_owned(), Spanned { value: variable.to_owned(), place })
            }
        };
        if let Some((_, first)) =
            caches.iter().find(|(other, _)| other.name == name || other.variable.value == variable.value)
        {
            report.add(
                Draft::new("duplicate-name", place, format!("the cache of {} is named twice", variable.value))
                    .label("again here")
                    .other(*first, "first here")
                    .help("leave one out"),
            );
            continue;
        }
        if OWN.contains(&variable.value.as_str()) {
            report.add(
                Draft::new("bad-variable", place, format!("flow sets `{}` itself", variable.value))
                    .label("fresh for each process")
                    .help("name the variable that moves the one cache"),
            );
            continue;
        }
        if let Some(given) = given(env, &variable.value) {
            report.add(
                Draft::new("duplicate-name", place, format!("the variable `{}` is given twice", variable.value))
                    .label("by a cache")
                    .other(given, "and here")
                    .help("a variable comes from one place: keep one of the two"),
            );
            continue;
        }
        caches.push((Cache { name, variable }, place));
    }
    caches.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
    caches.into_iter().map(|(cache, _)| cache).collect()
}

/// Where a step gives its processes a variable.
fn given(env: &Env, variable: &str) -> Option<Place> {
    let set = env.set.iter().map(|(name, _)| name);
    let all = set.chain(env.pass.iter().map(|pass| &pass.name)).chain(env.secret.iter().map(|secret| &secret.name));
    all.filter(|name| name.value == variable).map(|name| name.place).next()
}
