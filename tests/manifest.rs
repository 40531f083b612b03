//! What the reader makes of a good manifest, and that each rule of the grammar refuses what it should.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "manifest/folder.rs"]
mod folder;

use flow::manifest::{Base, Body, InputFrom, Manifest, RepoSource, Step};
use folder::{COMMON, Folder, kinds, shown};

fn step<'a>(manifest: &'a Manifest, name: &str) -> &'a Step {
    manifest.pipeline.steps.iter().find(|step| step.name.value.as_str() == name).expect(name)
}

fn needs(step: &Step) -> Vec<&str> {
    step.needs.iter().map(|need| need.value.as_str()).collect()
}

#[test]
fn standard_steps_have_their_axes_and_order() {
    let manifest = Folder::new().pipeline("").unwrap();
    let names: Vec<&str> = manifest.pipeline.steps.iter().map(|step| step.name.value.as_str()).collect();
    assert_eq!(names, ["checkout", "build", "baseline", "agent", "patch", "rebuild", "patched", "classify"]);
    assert_eq!(step(&manifest, "baseline").axes, ["repo", "commit"]);
    assert_eq!(step(&manifest, "rebuild").axes, ["repo", "commit", "candidate", "sample"]);
    assert_eq!(needs(step(&manifest, "rebuild")), ["patch"], "like copies all but what it replaces");
    assert_eq!(manifest.pipeline.agents.keys().collect::<Vec<_>>(), ["nop"], "only those that candidates name");
}

#[test]
fn amendments_replace_groups_and_keep_the_rest() {
    let body = "    step agent { timeout \"2s\"; set A \"1\" }\n    step patch { protect \"x/**\" }\n    step patched { set A \"1\"; set B \"2\" }\n    step rebuild { remove }\n    step build { needs checkout }";
    let folder = Folder::new().with(
        "standard.kdl",
        folder::STANDARD
            .replace("attempts 3", "attempts 3; set A \"0\"; pass B")
            .replace("needs patch rebuild", "needs patch"),
    );
    let manifest = folder.pipeline(body).unwrap();
    let agent = step(&manifest, "agent");
    assert_eq!(agent.timeout.as_ref().unwrap().value.as_secs(), 2);
    assert_eq!(agent.attempts.as_ref().unwrap().value, 3);
    assert_eq!(agent.env.set[0].1.value.to_string(), "1");
    assert_eq!(agent.env.pass.len(), 1, "another variable is kept");
    assert!(manifest.pipeline.steps.iter().all(|step| step.name.value.as_str() != "rebuild"));
    assert_eq!(manifest.notices.len(), 1);
    assert!(manifest.notices[0].value.contains("protected"));
    assert_eq!(step(&manifest, "baseline").env.set.len(), 2, "a gate takes the environment over");
}

#[test]
fn a_variable_is_replaced_whatever_it_was() {
    let folder = Folder::new().with("standard.kdl", folder::STANDARD.replace("attempts 3", "attempts 3; set A \"0\""));
    let manifest = folder.pipeline("    step agent { pass A hash=#false }").unwrap();
    let env = &step(&manifest, "agent").env;
    assert!(env.set.is_empty() && !env.pass[0].hash);
}

#[test]
fn commits_from_lines_tables_and_children() {
    let list = |commits: &str, folder: &Folder| {
        let body = format!(
            "    repo other \"git@host:x.git\" {{\n        {commits}\n        tests dir=\"tests\" name=\"a\" {{ metric n better=lower kind=count }}\n    }}"
        );
        let repos = folder.pipeline(&body).unwrap().pipeline.repos;
        let repo = repos.into_iter().next_back().unwrap();
        assert_eq!(repo.source.value, RepoSource::Url("git@host:x.git".into()));
        repo.commits
    };
    let folder = Folder::new()
        .with("c.txt", "# all\r\n\r\n8aa1485f  # first parent\r\n9bb2596a parent=2\r\naaaaaaaaaa 0123456789 # base\r\n")
        .with("c.jsonl", "{\"human\":\"8aa1485f00\",\"id\":\"8aa1485f\",\"gpus\":2,\"x\":null,\"l\":[1,\"a\"],\"ok\":true}\n\n{\"human\":\"9bb2596a\",\"parent\":2}\n")
        .with("c.csv", "human,base,task\n8aa1485f,0123456789,\"a, \"\"b\"\"\nc\"\n9bb2596a,,x\n");
    let lines = list("commits file=\"c.txt\"", &folder);
    let bases: Vec<&Base> = lines.iter().map(|commit| &commit.base).collect();
    assert_eq!(bases, [&Base::Parent(1), &Base::Parent(2), &Base::Id("0123456789".into())]);
    let rows = list("commits table=\"c.jsonl\"", &folder);
    let columns: Vec<(&str, &str)> = rows[0].columns.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(columns, [("gpus", "2"), ("l", "[1,\"a\"]"), ("ok", "true")]);
    assert_eq!(rows[1].base, Base::Parent(2));
    let cells = list("commits table=\"c.csv\"", &folder);
    assert_eq!(cells[0].columns["task"], "a, \"b\"\nc");
    assert_eq!(cells[1].base, Base::Parent(1));
    assert_eq!(list("commits { commit \"8aa1485f\" parent=3 }", &folder)[0].base, Base::Parent(3));
}

#[test]
fn bad_tables_are_refused_row_by_row() {
    let refuse = |name: &str, text: &str| {
        let body = format!(
            "    repo other \"x\" {{\n        commits table=\"{name}\"\n        tests dir=\"tests\" name=\"a\" {{ metric n better=lower kind=count }}\n    }}"
        );
        Folder::new().with(name, text).kinds(&body)
    };
    assert_eq!(
        refuse(
            "t.jsonl",
            "{\"human\":\"8aa1485f\",\"id\":\"9bb2596a\"}\n{\"human\":\"8aa1485f\",\"human\":\"x\"}\n[]\n{\"base\":\"x\"}\n{\"human\":12345678}\n"
        ),
        ["contradiction", "bad-row", "bad-row", "bad-row", "commit-as-number", "bad-row"]
    );
    assert_eq!(
        refuse("t.csv", "human,id8\n8aa1485f,8aa1485f\n8aa1485f00,\nx,y\nabcdefabcd,1,2\n"),
        ["duplicate-commit", "bad-commit", "bad-row"]
    );
    assert_eq!(refuse("t.csv", "a,a\n1,2\n"), ["bad-row"]);
    assert_eq!(refuse("t.xlsx", ""), ["unknown-ending"]);
}

#[test]
fn a_column_that_is_used_must_be_there_for_every_commit() {
    let body = |column: &str| {
        format!(
            "    repo other \"x\" {{\n        commits table=\"t.jsonl\"\n        tests dir=\"tests\" name=\"{{commit.{column}}}\" {{ metric n better=lower kind=count }}\n    }}"
        )
    };
    let folder = Folder::new()
        .with("t.jsonl", "{\"human\":\"8aa1485f\",\"a\":\"1\",\"b\":1}\n{\"human\":\"9bb2596a\",\"a\":\"2\"}\n");
    assert!(folder.kinds(&body("a")).is_empty());
    assert_eq!(folder.kinds(&body("b")), ["missing-column"]);
    assert_eq!(folder.kinds(&body("c")), ["unknown-hole"]);
}

#[test]
fn a_manifest_without_a_repository() {
    let text = r#"/- kdl-version 2
flow 1
pipeline chain {
    axis n file="n.txt"
    tool step "bin/step"
    step two uses=command { needs one; run "{tool.step}" "{in.one}" "{out.o}"; output o "two.txt" publish="out/{n}.txt" }
    step one uses=command { input a "in/{n}.txt"; run "{tool.step}" "{in.a}" "{out.o}"; output o "one.txt" }
    step all uses=command { input x from=two.o; run "cat" "{in.x}" }
}
"#;
    let manifest = Folder::new().with("n.txt", "a\n# no\nb\n").read(text).unwrap();
    let names: Vec<&str> = manifest.pipeline.steps.iter().map(|step| step.name.value.as_str()).collect();
    assert_eq!(names, ["one", "two", "all"]);
    assert_eq!(step(&manifest, "all").axes, ["n"]);
    assert_eq!(needs(step(&manifest, "all")), ["two"], "an input from a step needs it");
    let Body::Command(two) = &step(&manifest, "two").body else { panic!("a command") };
    assert!(
        matches!(&two.inputs[0].from, InputFrom::Output { step, output } if step.value.as_str() == "one" && output == "o")
    );
    assert_eq!(manifest.pipeline.axes[0].values, ["a", "b"]);
}

#[test]
fn commands_are_bound_without_doubt() {
    let read = |body: &str| kinds(Folder::new().read(&format!("flow 1\npipeline p {{\n axis n \"1\"\n{body}\n}}\n")));
    let two = "step a uses=command { run \"x\" \"{out.p}\"; output p \"p\"; output q \"q\" }\n";
    assert_eq!(read(&format!("{two}step b uses=command {{ needs a; run \"x\" }}")), ["ambiguous-input"]);
    assert_eq!(read(&format!("{two}step b uses=command {{ input i from=a.r; run \"x\" }}")), ["unknown-output"]);
    assert_eq!(read("step a uses=command { run \"x\" }\nstep b uses=command { needs a; run \"x\" }"), ["no-output"]);
    assert_eq!(read("step a uses=command { run \"x\"; output o \"../o\" }"), ["bad-output"]);
    assert_eq!(read("step a uses=command { run \"{n}\" }\nstep b uses=command { after a; run \"x\" }"), ["fewer-axes"]);
    assert_eq!(
        read("step a uses=command { run \"{n}\" }\nstep b uses=command { after a; each n; run \"x\" }"),
        [""; 0]
    );
    assert_eq!(read("step a uses=command { run \"{m}\" }"), ["unknown-hole"]);
    assert_eq!(read("step a uses=command { run \"{{m}}\" \"{var.X}\" }"), [""; 0]);
    assert_eq!(read("step a uses=command { input i \"gone.txt\"; run \"x\" }"), ["missing-file"]);
}

#[test]
fn rules_of_steps() {
    let folder = Folder::new();
    for (body, wanted) in [
        ("step x like=rebuild", "like-chain"),
        ("step x uses=test like=build", "two-sources"),
        ("step agent { timeout \"1s\" }\nstep agent { attempts 2 }", "duplicate-name"),
        ("step agentx { timeout \"1s\" }", "unknown-step"),
        ("step patched { needs agent }", "wrong-input"),
        ("step patch { needs checkout }", "wrong-input"),
        ("step x uses=patch", "missing-input"),
        ("step patched { against patch }", "wrong-gate"),
        ("step patched { holds gpu=1 }", "unknown-slot"),
        ("slots { gpu \"0\" }\nstep patched { holds gpu=2 }", "too-few-slots"),
        ("slots { cpu \"0\"; lane cpu 2 }", "duplicate-name"),
        ("slots { cpu \"0\"; gpu \"0\" }\nstep patched { holds cpu=1 }\nstep baseline { holds gpu=1 }", "drift"),
        ("step patched { sandbox off; write \"x\" }", "write-without-sandbox"),
        ("step agent { sandbox off; network \"api.example\" }", "network-without-sandbox"),
        ("step agent { sandbox auto; network \"*.example\" }", "bad-host"),
        ("step agent { sandbox auto; network \"https://api.example\" }", "bad-host"),
        ("step agent { sandbox auto; network \"[::1]:80\" }", "bad-host"),
        ("step patched { sandbox auto; network \"api.example\" }", "unknown-node"),
        ("step patched { equal nearly }", "unknown-word"),
        ("step patched { equal close }", "no-tolerance"),
        ("step patched { equal script band=\"1%\" }", "foreign-property"),
        ("step patched { equal script }\nstep baseline { equal close rtol=1e-3 }", "drift"),
        ("step patched { metric time_s better=lower }", "unheld-time"),
        ("step patched { metric a better=lower kind=count guard=#true }", "guard-first"),
        ("step baseline { with human }", "no-third-arm"),
        ("step patched { aa; with human }", "no-third-arm"),
        ("step agent { prompt file=\"gone.md\" }", "missing-file"),
        ("step agent { show nothing }", "unknown-column"),
        ("step agent { set FLOW_X \"1\" }", "bad-variable"),
        ("step agent { set A \"1\"; pass A }", "duplicate-name"),
        ("step agent { set HF_TOKEN \"{var.HF_TOKEN}\" }", "literal-secret"),
        ("step agent { pass HF_TOKEN }", "passed-secret"),
        ("step agent { secret A file=\"x\" { command \"y\" } }", "two-sources"),
        ("step agent { each nope }", "unknown-axis"),
        ("axis commit \"1\"", "taken-name"),
        ("axis n", "no-values"),
        ("axis n \"1\" \"1\"", "duplicate-name"),
        ("tool a \"x\"\ntool b \"y\"", "ambiguous-tool"),
        ("tool a \"~/bin/x\"", "home"),
        ("candidate x agent=nob", "unknown-agent"),
        ("candidate x agent=nop { args \"x\" }", "unused"),
        ("candidate x agent=scripted { file pach \"x\" optional=#true }", "unused"),
        ("budget 3", "bad-amount"),
        ("candidate x agent=scripted { samples (usd)3 }", "annotation"),
        ("step patch { protect \"a[\" }", "bad-glob"),
        ("step agent { timeout \"5 parsecs\" }", "bad-unit"),
        ("candidate a/b agent=nop", "syntax"),
        ("candidate \"a/b\" agent=nop { samples 2 }", "bad-name"),
    ] {
        let found = folder.kinds(body);
        assert!(found.iter().any(|kind| kind == wanted), "{body}: {wanted} not in {found:?}");
    }
}

#[test]
fn an_interpreter_that_agents_run_too_is_found_where_it_is_the_only_tool() {
    let with = |agents: &str| Folder::new().with("standard.kdl", format!("{}{agents}", folder::STANDARD));
    let tool = |manifest: &Manifest| match &step(manifest, "build").body {
        Body::Environment(body) => body.tool.as_ref().map(|tool| tool.value.clone()),
        _ => None,
    };
    let own = with("agent own { run \"{tool.python}\" \"x\" }\n");
    let one = "    tool python \"python3\"\n    candidate own agent=own";
    assert_eq!(tool(&own.pipeline(one).unwrap()).as_deref(), Some("python"));
    let spare = format!("{one}\n    tool spare \"x\"");
    assert_eq!(tool(&own.pipeline(&spare).unwrap()).as_deref(), Some("spare"), "what no agent runs goes first");
    let both = with("agent own { run \"{tool.python}\" \"{tool.other}\" }\n");
    let found = both.kinds(&format!("{one}\n    tool other \"x\""));
    assert_eq!(found, ["ambiguous-tool"], "none can be told, which is said once and not of the copied step too");
}

#[test]
fn a_table_that_is_named_as_a_list_is_one_flaw_that_says_table() {
    let read = |text: &str| {
        let folder = Folder::new().with("rows.csv", text);
        let manifest =
            "flow 1\npipeline p {\n repo shop \"x\" { commits file=\"rows.csv\" }\n step c uses=checkout\n}\n";
        folder.read(manifest)
    };
    let flaws = read("human,task\n8aa1485f,a\n9bb2596a,b\n").unwrap_err();
    let said: Vec<_> = flaws.flaws().iter().map(|flaw| (flaw.kind(), flaw.advice().unwrap_or_default())).collect();
    assert_eq!(said, [("table-as-lines", "write `commits table=\"rows.csv\"`")]);
    assert!(read("# ids\n8aa1485f\n9bb2596a\n").is_ok(), "a list may be called as it likes");
}

#[test]
fn prompts_show_only_what_is_shown() {
    let folder = Folder::new().with("p.md", "Mend {repo.name} {commit.id}. Braces: {{}}\n");
    let agent = |show: &str| {
        format!("    candidate n2 agent=scripted {{ samples 2 }}\n    step agent {{ prompt file=\"p.md\"; {show} }}")
    };
    assert_eq!(folder.kinds(&agent("")), ["unknown-hole"]);
    assert_eq!(folder.kinds(&agent("show id")), [""; 0]);
}

#[test]
fn configs_are_values() {
    let read = |name: &str, text: &str| {
        let folder = Folder::new().with(name, text);
        let body = format!("    candidate t agent=trae {{ model \"m\"; config \"{name}\"; secret K }}");
        folder
            .pipeline(&body)
            .map(|manifest| manifest.pipeline.candidates[1].config.as_ref().unwrap().value.to_string())
    };
    let yaml = read("t.yaml", "b: 1 # note\na: {api_key: '{secret.K}', y: \"1\"}\n").unwrap();
    let json = read("t.json", "{\"a\":{\"y\":\"1\",\"api_key\":\"{secret.K}\"},\"b\":1}").unwrap();
    let toml = read("t.toml", "b = 1\n[a]\napi_key = \"{secret.K}\"\ny = \"1\"\n").unwrap();
    assert_eq!(yaml, json);
    assert_eq!(toml, json);
    for (name, text, wanted) in [
        ("t.json", "{\"a\":1,\"a\":2}", "duplicate-key"),
        ("t.yaml", "a: {b: 1, b: 2}", "duplicate-key"),
        ("t.toml", "a = 1\na = 2", "duplicate-key"),
        ("t.json", "{", "bad-config"),
        ("t.yaml", "a: [", "bad-config"),
        ("t.ini", "", "unknown-ending"),
        ("t.json", "{\"apiKey\":\"x\"}", "literal-secret"),
        ("t.toml", "[x]\ndb-password = \"x\"", "literal-secret"),
        ("t.json", "{\"a\":\"{secret.NONE}\"}", "unknown-secret"),
    ] {
        assert_eq!(kinds_of(read(name, text)), [wanted], "{text}");
    }
    for fine in ["{\"max_tokens\":\"8000\",\"api_key\":\"\",\"token\":3}", "{\"api_key\":\"${KEY}\"}"] {
        assert!(read("t.json", fine).is_ok(), "{fine}");
    }
    let bomb = format!(
        "a: &a [{}]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f]\n",
        "1,".repeat(60) + "1"
    );
    assert_eq!(kinds_of(read("t.yaml", &bomb)), ["bad-config"]);
    assert_eq!(kinds_of(read("t.yaml", &"[".repeat(100_000))), ["bad-config"]);
    assert_eq!(kinds_of(read("t.toml", &format!("a = {}", "[".repeat(100_000)))), ["bad-config"]);
}

fn kinds_of<T>(read: Result<T, flow::manifest::Flaws>) -> Vec<String> {
    read.err().map(|flaws| flaws.flaws().iter().map(|flaw| flaw.kind().to_owned()).collect()).unwrap_or_default()
}

#[test]
fn imports_are_idempotent_and_no_cycle() {
    let folder = Folder::new()
        .with("a.kdl", "flow 1\nimport \"./b.kdl\"\nagent a { run \"x\" }\n")
        .with("b.kdl", "flow 1\nagent b { run \"x\" }\n")
        .with("loop.kdl", "flow 1\nimport \"pool.kdl\"\n")
        .with("pool.kdl", "flow 1\nimport \"loop.kdl\"\n")
        .with("bare.kdl", "agent c { run \"x\" }\n")
        .with("pipe.kdl", "flow 1\npipeline x {\n}\n");
    let read = |imports: &str| {
        let body = folder::COMMON;
        folder.read(&format!("flow 1\nimport \"standard.kdl\" {imports}\npipeline p {{\n{body}\n}}\n"))
    };
    assert_eq!(read("\"a.kdl\" \"b.kdl\" \"tests/../a.kdl\"").unwrap().files.len(), 4);
    assert_eq!(kinds(read("\"loop.kdl\"")), ["import-cycle"]);
    assert_eq!(kinds(read("\"bare.kdl\"")), ["no-format"]);
    assert_eq!(kinds(read("\"pipe.kdl\"")), ["imported-pipeline"]);
    assert_eq!(kinds(read("\"tests\"")), ["missing-file"]);
    assert_eq!(kinds(folder.read("flow 2\npipeline p {\n}\n"))[0], "out-of-range");
}

#[test]
fn many_flaws_are_bounded() {
    let rows = "x\n".repeat(5000);
    let body = "    repo other \"x\" {\n        commits file=\"c.txt\"\n        tests dir=\"tests\" name=\"a\" { metric n better=lower kind=count }\n    }";
    let flaws = Folder::new().with("c.txt", rows).pipeline(body).unwrap_err();
    assert_eq!(flaws.flaws().len(), 100);
    assert!(flaws.to_string().contains("5000 flaws"), "{flaws}");
}

#[test]
fn a_file_that_is_not_there() {
    let flaws = flow::manifest::read(std::path::Path::new("/nowhere/p.kdl")).unwrap_err();
    assert_eq!(flaws.flaws()[0].message(), "/nowhere/p.kdl: there is no such file");
}

#[test]
fn the_quickstart_has_no_flaw() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/quickstart.kdl");
    let manifest = flow::manifest::read(&path).unwrap();
    assert_eq!(manifest.pipeline.repos[0].commits.len(), 12);
    assert_eq!(manifest.pipeline.steps.len(), 8);
    assert!(manifest.notices.is_empty());
}

#[test]
fn a_provider_is_declared_at_the_top_and_named_by_a_model() {
    let body = "    candidate a agent=trae { model \"m\" provider=bedrok; config \"t.yaml\" }";
    let providers = "flow 1\nprovider bedrock { lane 4; secret KEY file=\"key\"; per-minute requests=50 }\nprovider spare { lane 1 }\n";
    let folder = Folder::new().with("t.yaml", "a: 1\n").with("providers.kdl", providers);
    let pipeline = |body: &str| {
        folder.read(&format!("flow 1\nimport \"standard.kdl\" \"providers.kdl\"\npipeline p {{\n{COMMON}{body}\n}}\n"))
    };
    assert!(shown(pipeline(body)).contains("did you mean `bedrock`?"));
    let read = pipeline(&body.replace("bedrok", "bedrock")).unwrap();
    let providers: Vec<&str> = read.pipeline.providers.keys().map(|name| name.as_str()).collect();
    assert_eq!(providers, ["bedrock"], "what nobody names asks for nothing");
    let provider = read.pipeline.provider_of(1).unwrap();
    assert_eq!((provider.lane, provider.per_minute.requests, provider.per_minute.tokens), (Some(4), Some(50), None));
    assert!(provider.env.secret[0].of_provider);
}

#[test]
fn the_hosts_of_a_provider_are_held_by_the_sandbox_of_its_agents() {
    let folder = Folder::new().with("providers.kdl", "flow 1\nprovider acme { network \"api.example\" }\n");
    let read = |more: &str| {
        let body = format!("    candidate a agent=nop {{ model \"m\" provider=acme }}\n{more}");
        folder.read(&format!("flow 1\nimport \"standard.kdl\" \"providers.kdl\"\npipeline p {{\n{COMMON}{body}\n}}\n"))
    };
    assert!(shown(read("    step agent { sandbox off }")).contains("network-without-sandbox"));
    let read = read("").unwrap();
    let hosts = &read.pipeline.provider_of(1).unwrap().network.as_ref().unwrap().value;
    assert_eq!(hosts[0].to_string(), "api.example");
}

#[test]
fn what_a_provider_cannot_mean_is_refused() {
    for (children, code) in [
        ("expires", "missing-argument"),
        ("expires \"date\" file=\"x\"", "two-sources"),
        ("expires file=\"x\" pointer=\"a\"", "bad-pointer"),
        ("expires file=\"{commit.id}\"", "unknown-hole"),
        ("set A \"{commit.id}\"", "unknown-hole"),
        ("per-minute", "missing-property"),
        ("lane 0", "out-of-range"),
        ("lane 1; lane 2", "repeated-node"),
    ] {
        let text = format!(
            "flow 1\nimport \"standard.kdl\"\nprovider b {{ {children} }}\npipeline p {{\n{COMMON}    candidate a agent=scripted {{ model \"m\" provider=b }}\n}}\n"
        );
        let found = kinds(Folder::new().read(&text));
        assert!(found.iter().any(|kind| kind == code), "{children}: {found:?}");
    }
}
