//! How an engine is told to run something: the whole of its command line, and what its client is started with.
//!
//! What runs there sees the folders that it is given and nothing else of this machine, has no network unless it is to have one,
//! and no right that root has. A small shell script begins it: it tells that the container is up, and opens the pipe by which
//! the timed window is marked, for no engine hands descriptors through.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Engine, Kind, LABEL, client};

/// What begins in the container, given the pipe, the home and a folder of programs: the pipe is descriptor 3 from then on.
const BEGIN: &str = "exec 3>\"$0\" && printf b >&3 && HOME=$1 && export HOME && \
                     { [ -z \"$2\" ] || { PATH=$2:$PATH; export PATH; }; } && shift 2 && exec \"$@\"";
/// How variables begin that would change what the client itself does.
const CHANGES: &[&str] = &["LD_", "GO", "GLIBC_", "MALLOC_"];
/// How much memory may be shared within: what engines allow by themselves is too little for what moves tensors there.
const SHARED: &str = "16g";

/// A folder or file of this machine that is seen at its own path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its path.
    pub path: PathBuf,
    /// Whether it can be written to.
    pub writable: bool,
}

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Its slot's name: its number, mostly.
    pub name: String,
    /// What the driver calls it.
    pub uuid: String,
}

/// What is to run in a container.
#[derive(Clone, Copy, Debug)]
pub struct Inside<'a> {
    /// The container's name.
    pub name: &'a str,
    /// The attempt it belongs to.
    pub attempt: &'a str,
    /// The image, or its file.
    pub image: &'a str,
    /// What is run.
    pub argv: &'a [String],
    /// Its variables. `HOME` is `home`, and `PATH` is the image's own.
    pub env: &'a BTreeMap<String, String>,
    /// The names of secrets, whose values nobody but the client's environment holds.
    pub secrets: &'a [String],
    /// Where it starts.
    pub cwd: &'a Path,
    /// Its home.
    pub home: &'a Path,
    /// The pipe by which it tells that it began.
    pub pipe: &'a Path,
    /// A folder whose programs come first.
    pub programs: Option<&'a Path>,
    /// What of this machine it sees.
    pub mounts: &'a [Mount],
    /// Whether it has this machine's network; none at all otherwise.
    pub network: bool,
    /// Its GPUs.
    pub gpus: &'a [Gpu],
    /// Its cores; any if empty.
    pub cores: &'a [u32],
}

/// How an engine is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its argv.
    pub argv: Vec<String>,
    /// The environment of its client, complete but for the secrets.
    pub env: BTreeMap<String, String>,
    /// What stands before the name of a secret in the client's environment.
    pub prefix: &'static str,
}

impl Engine {
    /// How it is told to run something.
    ///
    /// # Errors
    /// In words, if a path cannot be said to it.
    pub fn run(&self, inside: &Inside<'_>, variables: &BTreeMap<String, String>) -> Result<Told, String> {
        // What divides the parts of a mount cannot be in one of them.
        let odd = |path: &&Path| path.to_str().is_none_or(|path| path.contains([':', ',']));
        let paths = inside.mounts.iter().map(|mount| mount.path.as_path());
        if let Some(path) = paths.chain([inside.cwd, inside.home, inside.pipe]).find(odd) {
            return Err(format!("{} cannot be mounted: no engine takes a path with `:` or `,`", path.display()));
        }
        let mut argv = self.argv(&[]);
        let env = match self.kind {
            Kind::Podman | Kind::Docker => self.daemon(inside, variables, &mut argv),
            Kind::Apptainer => apptainer(inside, variables, &mut argv),
        };
        let programs = inside.programs.map(|path| path.display().to_string()).unwrap_or_default();
        let begin = ["-c", BEGIN, &inside.pipe.display().to_string(), &inside.home.display().to_string(), &programs];
        argv.extend(begin.map(str::to_owned));
        argv.extend(inside.argv.iter().cloned());
        Ok(Told { argv, env, prefix: if self.kind == Kind::Apptainer { APPTAINER } else { "" } })
    }

    /// As podman and docker take it.
    fn daemon(
        &self,
        inside: &Inside<'_>,
        variables: &BTreeMap<String, String>,
        argv: &mut Vec<String>,
    ) -> BTreeMap<String, String> {
        let mut put = |words: &[&str]| argv.extend(words.iter().map(ToString::to_string));
        put(&["run", "--rm", "--init", "--name", inside.name, "--label", &format!("{LABEL}={}", inside.attempt)]);
        // What it prints is captured and redacted by flow: an engine's own log would be neither.
        put(&["--pull", "never", "--log-driver", "none"]);
        put(&["--network", if inside.network { "host" } else { "none" }]);
        let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
        match self.rootless {
            true => put(&["--userns", "keep-id"]),
            false => put(&["--user", &format!("{user}:{group}")]),
        }
        put(&["--cap-drop", "all", "--security-opt", "no-new-privileges", "--security-opt", "label=disable"]);
        put(&["--shm-size", SHARED]);
        if !inside.cores.is_empty() && self.holds_cores {
            let cores: Vec<String> = inside.cores.iter().map(ToString::to_string).collect();
            put(&["--cpuset-cpus", &cores.join(",")]);
        }
        if !inside.gpus.is_empty() && self.kind == Kind::Docker {
            let uuids: Vec<&str> = inside.gpus.iter().map(|gpu| gpu.uuid.as_str()).collect();
            // A list needs quotes of its own: a comma divides options there.
            let device = format!("device={}", uuids.join(","));
            put(&["--gpus", &if uuids.len() == 1 { device } else { format!("\"{device}\"") }]);
        }
        for gpu in inside.gpus.iter().filter(|_| self.kind == Kind::Podman) {
            put(&["--device", &format!("nvidia.com/gpu={}", gpu.name)]);
        }
        for mount in inside.mounts {
            let (path, mode) = (mount.path.display(), if mount.writable { "rw" } else { "ro" });
            put(&["-v", &format!("{path}:{path}:{mode}")]);
        }
        let mut env = client(variables);
        let changes = |name: &str| CHANGES.iter().any(|begin| name.starts_with(begin));
        for (name, value) in inside.env {
            // By name alone, so that no value is in a list of processes; what would change the client itself has to be told.
            if env.get(name).is_some_and(|own| own != value) || changes(name) {
                put(&["-e", &format!("{name}={value}")]);
            } else {
                put(&["-e", name]);
            }
        }
        inside.secrets.iter().for_each(|name| put(&["-e", name]));
        for (name, value) in inside.env.iter().filter(|(name, _)| !changes(name)) {
            env.entry(name.clone()).or_insert_with(|| value.clone());
        }
        put(&["--workdir", &inside.cwd.display().to_string(), "--entrypoint", "/bin/sh", inside.image]);
        env
    }
}

/// What apptainer gives on without its beginning.
const APPTAINER: &str = "APPTAINERENV_";

/// As apptainer takes it.
fn apptainer(
    inside: &Inside<'_>,
    variables: &BTreeMap<String, String>,
    argv: &mut Vec<String>,
) -> BTreeMap<String, String> {
    let mut put = |words: &[&str]| argv.extend(words.iter().map(ToString::to_string));
    put(&["exec", "--containall", "--cleanenv", "--no-home"]);
    if !inside.network {
        put(&["--net", "--network", "none"]);
    }
    if !inside.gpus.is_empty() {
        put(&["--nv"]);
    }
    for mount in inside.mounts {
        let (path, mode) = (mount.path.display(), if mount.writable { "rw" } else { "ro" });
        put(&["--bind", &format!("{path}:{path}:{mode}")]);
    }
    put(&["--pwd", &inside.cwd.display().to_string(), inside.image, "/bin/sh"]);
    let mut env = client(variables);
    env.extend(inside.env.iter().map(|(name, value)| (format!("{APPTAINER}{name}"), value.clone())));
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(kind: Kind, change: impl FnOnce(&mut Inside<'_>)) -> Told {
        let argv = ["python3", "/p/script/t.py"].map(str::to_owned);
        let env = [("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b"), ("TMPDIR", "/p/tmp"), ("SEED", "7"), ("LD_PRELOAD", "x")];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let secrets = ["TOKEN".to_owned()];
        let mount = |path: &str, writable| Mount { path: path.into(), writable };
        let mounts = [mount("/p/tree-a", true), mount("/p/script", false)];
        let gpu = |name: &str, uuid: &str| Gpu { name: name.into(), uuid: uuid.into() };
        let gpus = [gpu("0", "GPU-a"), gpu("1", "GPU-b")];
        let mut inside = Inside {
            name: "flow-r-1-run-0",
            attempt: "r-1",
            image: "python@sha256:1",
            argv: &argv,
            env: &env,
            secrets: &secrets,
            cwd: Path::new("/p/tree-a"),
            home: Path::new("/p/home"),
            pipe: Path::new("/p/box/run-0/began"),
            programs: None,
            mounts: &mounts,
            network: false,
            gpus: &gpus,
            cores: &[0, 1],
        };
        change(&mut inside);
        let engine = Engine {
            kind,
            program: format!("/usr/bin/{}", kind.word()).into(),
            version: "1".into(),
            rootless: kind == Kind::Podman,
            holds_cores: true,
        };
        let variables = [("PATH", "/usr/bin"), ("TMPDIR", "/tmp"), ("AWS_KEY", "hidden")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        engine.run(&inside, &variables).unwrap()
    }

    /// Up to what begins in the container.
    fn line(told: &Told) -> String {
        let at = told.argv.iter().position(|word| word == "-c").unwrap();
        assert_eq!(told.argv[at + 1], BEGIN);
        let mut words = told.argv.clone();
        words.remove(at + 1);
        words.join(" ")
    }

    #[test]
    fn each_engine_is_told_as_its_manual_says() {
        let user = format!("{}:{}", nix::unistd::geteuid(), nix::unistd::getegid());
        assert_eq!(
            line(&told(Kind::Podman, |_| {})),
            "/usr/bin/podman run --rm --init --name flow-r-1-run-0 --label flow.attempt=r-1 --pull never --log-driver none \
             --network none --userns keep-id --cap-drop all --security-opt no-new-privileges --security-opt label=disable \
             --shm-size 16g --cpuset-cpus 0,1 --device nvidia.com/gpu=0 --device nvidia.com/gpu=1 \
             -v /p/tree-a:/p/tree-a:rw -v /p/script:/p/script:ro -e CUDA_VISIBLE_DEVICES -e LD_PRELOAD=x -e SEED -e TMPDIR=/p/tmp -e TOKEN \
             --workdir /p/tree-a --entrypoint /bin/sh python@sha256:1 -c /p/box/run-0/began /p/home  python3 /p/script/t.py"
        );
        assert_eq!(
            line(&told(Kind::Docker, |_| {})),
            format!(
                "/usr/bin/docker run --rm --init --name flow-r-1-run-0 --label flow.attempt=r-1 --pull never --log-driver none \
                 --network none --user {user} --cap-drop all --security-opt no-new-privileges --security-opt label=disable \
                 --shm-size 16g --cpuset-cpus 0,1 --gpus \"device=GPU-a,GPU-b\" \
                 -v /p/tree-a:/p/tree-a:rw -v /p/script:/p/script:ro -e CUDA_VISIBLE_DEVICES -e LD_PRELOAD=x -e SEED -e TMPDIR=/p/tmp -e TOKEN \
                 --workdir /p/tree-a --entrypoint /bin/sh python@sha256:1 -c /p/box/run-0/began /p/home  python3 /p/script/t.py"
            )
        );
        assert_eq!(
            line(&told(Kind::Apptainer, |inside| inside.image = "/e/image.sif")),
            "/usr/bin/apptainer exec --containall --cleanenv --no-home --net --network none --nv \
             --bind /p/tree-a:/p/tree-a:rw --bind /p/script:/p/script:ro --pwd /p/tree-a /e/image.sif \
             /bin/sh -c /p/box/run-0/began /p/home  python3 /p/script/t.py"
        );
    }

    #[test]
    fn a_client_has_what_it_needs_and_the_container_only_what_it_is_given() {
        let told_docker = told(Kind::Docker, |_| {});
        assert_eq!(told_docker.env["TMPDIR"], "/tmp", "the client's own");
        assert_eq!(told_docker.env["SEED"], "7");
        assert!(!told_docker.env.contains_key("AWS_KEY") && !told_docker.env.contains_key("LD_PRELOAD"));
        let told_apptainer = told(Kind::Apptainer, |_| {});
        assert_eq!(told_apptainer.env["APPTAINERENV_TMPDIR"], "/p/tmp");
        assert_eq!(told_apptainer.env["TMPDIR"], "/tmp");
        assert_eq!(told_apptainer.prefix, "APPTAINERENV_");
    }

    #[test]
    fn a_network_is_opened_by_word_and_a_single_gpu_needs_no_quotes() {
        let open = told(Kind::Docker, |inside| {
            inside.network = true;
            inside.gpus = &inside.gpus[..1];
        });
        assert!(line(&open).contains("--network host") && line(&open).contains("--gpus device=GPU-a "));
        assert!(!line(&told(Kind::Apptainer, |inside| inside.network = true)).contains("--net"));
    }
}
