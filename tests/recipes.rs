//! The promise of the recipes in `pipelines/recipes`: each runs as it is shipped, to the end, on a repository that it is for. Packages come
//! from a folder that the test makes, as the variables say that a recipe passes on.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Flow, search_path};

/// A wheel of pure Python, written as pip would find it: name, version and its files. It asks for `demo-dep` unless it is that.
fn wheel(folder: &Path, name: &str, version: &str, files: &[(&str, &str)]) {
    std::fs::create_dir_all(folder).unwrap();
    let script = r#"
import sys, zipfile
folder, name, version, *files = sys.argv[1:]
info = f"{name}-{version}.dist-info"
texts = dict(zip(files[::2], files[1::2]))
needs = "" if name == "demo_dep" else "Requires-Dist: demo-dep\n"
texts[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"
texts[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
texts[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*texts, f"{info}/RECORD"])
with zipfile.ZipFile(f"{folder}/{name}-{version}-py3-none-any.whl", "w") as wheel:
    for path, text in texts.items():
        wheel.writestr(path, text)
"#;
    let mut python = Command::new("python3");
    python.env("PATH", search_path()).args(["-c", script]).arg(folder).args([name, version]);
    assert!(python.args(files.iter().flat_map(|(path, text)| [*path, *text])).status().unwrap().success());
}

const SLOW: &str = "OPS = [0]\n\n\ndef one(n):\n    for _ in range(n):\n        OPS[0] += 10\n    return n\n";

/// A repository with one commit that makes `pkg.work` ten times faster, and the agents `human`, `nop` and `patched`, whose patch is to
/// a file that each recipe is built from. `first` are the first lines of the test.
fn project(recipe: &str, step: &str, files: &[(&str, &str)], touched: &str, first: &str) -> Flow {
    let mut flow = Flow::empty();
    flow.env("COLUMNS", "300");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    support::copy(&root.join("pipelines"), &flow.path("pipelines"));
    let files: Vec<(&str, &str)> =
        [("pkg/__init__.py", ""), ("pkg/work.py", SLOW)].into_iter().chain(files.iter().copied()).collect();
    flow.commit("start", &files);
    flow.commit("one", &[("pkg/work.py", &SLOW.replace("+= 10", "+= 1"))]);
    flow.write("commits.txt", "{one:40}\n");
    let more = match touched.rsplit('.').next() {
        Some("c") => "int more(void) { return 1; }",
        Some("py") => "MORE = 1",
        _ => "# more",
    };
    flow.patch("touched", "one", touched, |text| format!("{text}{more}\n"));
    flow.write(
        "tests/work.py",
        &format!(
            r#"import json, os, sys
sys.path.insert(0, os.getcwd())
{first}
import pkg.work
result = pkg.work.one(100)
with open(os.environ["FLOW_RESULT"], "w") as f:
    json.dump({{"metrics": {{"ops": pkg.work.OPS[0]}}, "digest": "sha256:" + str(result), "imported": {{"pkg": pkg.work.__file__}}}}, f)
"#
        ),
    );
    let tools = "tool python \"python3\" { probe \"-VV\" }";
    flow.write(
        "m.kdl",
        &format!(
            r#"flow 1
import "pipelines/agents/human.kdl" "pipelines/agents/scripted.kdl" "pipelines/steps/standard.kdl" "pipelines/recipes/{recipe}.kdl"
pipeline recipes {{
    repo pkg "repo" {{
        commits file="commits.txt"
        tests dir="tests" name="work.py" contract=flow {{ metric ops better=lower kind=count min-effect="2%" }}
    }}
    {tools}
    candidate human agent=human
    candidate touched agent=scripted {{ file patch "patches/touched/{{commit.id8}}.patch" }}
    step agent {{ timeout "1m" }}
    {step}
}}
"#
        ),
    );
    flow
}

/// Points pip and uv at a folder, and at nothing else.
fn only(flow: &mut Flow, index: &Path) {
    flow.env("PIP_FIND_LINKS", &index.display().to_string());
    flow.env("PIP_NO_INDEX", "1");
    // uv reads a folder as an index if it has a page for each package.
    let page = index.join("simple/demo-dep/index.html");
    std::fs::create_dir_all(page.parent().unwrap()).unwrap();
    let name = "demo_dep-1.5-py3-none-any.whl";
    std::fs::write(page, format!("<a href=\"file://{0}/{name}\">{name}</a>\n", index.display())).unwrap();
    flow.env("UV_DEFAULT_INDEX", &format!("file://{}/simple", index.display()));
}

/// The human's work is found, the other patch is built and changes no speed, and a second run executes nothing.
fn runs_to_its_end(flow: &Flow) {
    let ran = flow.run();
    assert_eq!(ran.settles().class("{one}/human/1"), "SUCCESS_IMPROVEMENT", "{}", ran.stderr);
    assert_eq!(ran.class("{one}/touched/1"), "SUCCESS_NEUTRAL", "{}", ran.stderr);
    let rebuilt = ran.executed().into_iter().filter(|action| action.ends_with(" rebuild")).count();
    assert_eq!(rebuilt, 1, "what the patch touches is built, without a network");
    flow.run().settles().executes_nothing();
}

/// The identity of the base's environment.
fn identity(flow: &Flow) -> Vec<String> {
    let ended = flow.ends("build", "succeeded");
    let list = ended[0]["outputs"]["identity"].to_string();
    list.split('"').filter(|text| text.contains('-')).map(str::to_owned).collect()
}

fn dependency(flow: &Flow) -> PathBuf {
    let index = flow.path("index");
    wheel(&index, "demo_dep", "1.5", &[("demo_dep.py", "ANSWER = 42\n")]);
    index
}

const USES: &str = "import demo_dep\nassert demo_dep.ANSWER == 42";

#[test]
fn venv_pip() {
    let step = "step build { recipe venv-pip tool=python }";
    let mut flow = project("venv_pip", step, &[("requirements.txt", "demo-dep==1.5\n")], "requirements.txt", USES);
    let index = dependency(&flow);
    only(&mut flow, &index);
    runs_to_its_end(&flow);
    assert!(identity(&flow).contains(&"demo_dep-1.5".to_owned()), "{:?}", identity(&flow));
}

#[test]
fn venv_uv() {
    let Some(uv) = find("uv") else { return eprintln!("skipped: there is no uv on this machine") };
    let step = format!(
        "tool uv \"{}\" {{ probe \"--version\" }}\n    step build {{ recipe venv-uv tool=python }}",
        uv.display()
    );
    let mut flow = project("venv_uv", &step, &[("requirements.txt", "demo-dep==1.5\n")], "requirements.txt", USES);
    let index = dependency(&flow);
    only(&mut flow, &index);
    runs_to_its_end(&flow);
    assert!(identity(&flow).contains(&"demo_dep-1.5".to_owned()), "{:?}", identity(&flow));
}

#[test]
fn wheel_of_each_commit() {
    let files = [("requirements.txt", "demo-dep==1.5\n"), (".gitignore", "*.so\n_version.py\n")];
    let first = "assert open('pkg/_native.so').read() == 'built elsewhere'\nimport pkg._version, demo_dep\nassert pkg._version.VERSION == '7'";
    let mut flow = project("wheel", "step build { recipe wheel tool=python }", &files, "requirements.txt", first);
    flow.edit("pipelines/recipes/wheel.kdl", |text| text.replace("vllm", "pkg"));
    let base = support::git(&flow.path("repo"), &["rev-parse", "HEAD^"]);
    let parts = [
        ("pkg/__init__.py", ""),
        ("pkg/work.py", SLOW),
        ("pkg/_version.py", "VERSION = '7'\n"),
        ("pkg/_native.so", "built elsewhere"),
    ];
    let index = dependency(&flow);
    // A release that is newer than the commit's: never its stand-in.
    wheel(&index, "pkg", "9.0", &parts);
    only(&mut flow, &index);
    flow.env("WHEELS", &flow.path("wheels").display().to_string());
    flow.run_with(&["--until", "build"]).exits(3);
    let shown = flow.flow(&["show", "pkg/{one}/touched/1", "m.kdl", "--json"]).json().to_string();
    assert!(shown.contains("ENVIRONMENT_FAILED") && shown.contains("(from versions: none)"), "{shown}");
    wheel(&flow.path("wheels").join(base.trim()), "pkg", "7.0.dev1", &parts);
    flow.run_with(&["--retry", "pkg/*", "--until", "build"]).settles();
    runs_to_its_end(&flow);
    for installed in ["pkg-7.0.dev1", "demo_dep-1.5"] {
        assert!(identity(&flow).contains(&installed.to_owned()), "{:?}", identity(&flow));
    }
}

const NATIVE: &str = r#"#include <Python.h>
static PyObject *answer(PyObject *self, PyObject *none) { return PyLong_FromLong(42); }
static PyMethodDef methods[] = {{"answer", answer, METH_NOARGS, ""}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_native", "", -1, methods};
PyMODINIT_FUNC PyInit__native(void) { return PyModule_Create(&module); }
"#;

#[test]
fn package_with_native_code() {
    let files = [
        (
            "pyproject.toml",
            "[build-system]\nrequires = [\"setuptools\"]\nbuild-backend = \"setuptools.build_meta\"\n[project]\nname = \"pkg\"\nversion = \"1\"\n",
        ),
        (
            "setup.py",
            "from setuptools import setup, Extension\nsetup(packages=['pkg'], package_dir={'': '.'}, ext_modules=[Extension('pkg._native', ['src/native.c'])])\n",
        ),
        ("src/native.c", NATIVE),
        (".gitignore", "*.so\n"),
    ];
    let first = "import pkg._native\nassert pkg._native.answer() == 42";
    let mut flow = project("package", "step build { recipe package tool=python }", &files, "src/native.c", first);
    flow.edit("pipelines/recipes/package.kdl", |text| text.replace("\"src/**\"", "\"src/**\" \"pkg/__init__.py\""));
    let index = flow.path("index");
    let mut pip = Command::new("python3");
    pip.env("PATH", search_path()).args(["-m", "pip", "download", "--quiet", "--timeout", "20", "-d"]).arg(&index);
    let brought = pip.args(["setuptools<80", "wheel", "setuptools_scm[toml]>=3.4"]).output().unwrap();
    if !brought.status.success() {
        return eprintln!("skipped: setuptools cannot be had: {}", String::from_utf8_lossy(&brought.stderr));
    }
    only(&mut flow, &index);
    runs_to_its_end(&flow);
    assert!(
        identity(&flow).contains(&"pkg-0".to_owned()) || identity(&flow).contains(&"pkg-1".to_owned()),
        "{:?}",
        identity(&flow)
    );
}

#[test]
fn native_by_the_compiler_alone() {
    if find("cc").is_none() {
        return eprintln!("skipped: there is no C compiler on this machine");
    }
    let c = "int answer(void) { return 42; }\n";
    let first = "import ctypes\nassert ctypes.CDLL(os.getcwd() + '/tally/_native.so').answer() == 42";
    let step = "tool cc \"cc\" { probe \"--version\" }\n    step build { recipe native tool=python }";
    let files = [("csrc/tally.c", c), ("tally/__init__.py", ""), (".gitignore", "*.so\n")];
    let flow = project("native", step, &files, "csrc/tally.c", first);
    runs_to_its_end(&flow);
}

#[test]
fn an_interpreter_that_is_there_is_probed_and_nothing_is_built() {
    let flow = project("venv_pip", "step build { recipe interpreter tool=python }", &[], "pkg/__init__.py", "");
    let ran = flow.run();
    assert_eq!(ran.settles().class("{one}/human/1"), "SUCCESS_IMPROVEMENT");
    assert!(
        !flow.cache().join("envs").exists() || std::fs::read_dir(flow.cache().join("envs")).unwrap().next().is_none()
    );
    let ended = flow.ends("build", "succeeded");
    let said = ended[0]["outputs"]["identity"].to_string();
    let version = Command::new("python3").env("PATH", search_path()).arg("-V").output().unwrap();
    assert!(
        said.contains(String::from_utf8(version.stdout).unwrap().trim()),
        "its probe's answer is its identity: {said}"
    );
    flow.run().settles().executes_nothing();
}

/// A program in `PATH`.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file())
}
