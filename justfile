# `just` lists these. Each is one line that can be typed without just as well.

_list:
    @just --list

# The quickstart, in a store of its own if FLOW_CACHE names one
quickstart:
    cargo run -- run pipelines/quickstart.kdl

# All tests
test:
    cargo test

# What has to be clean before a commit
check:
    cargo fmt --check
    cargo clippy --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

# Write anew what is generated: docs/manifest.md, the tables of docs/verdicts.md and the six cases of docs/why.md
docs:
    UPDATE_DOCS=1 cargo test --test manifest_reference
    UPDATE_DOCS=1 cargo test --test docs the_tables
    UPDATE_DOCS=1 cargo test --test why_cases

# Licences, sources and versions of the dependencies
deny:
    cargo deny --locked check bans licenses sources

# Cold and no-op runs of trivial steps, against bare processes; `flow why` in a large project, beside ninja
bench:
    cargo bench --bench noop
    cargo bench --bench why

# All that has to pass, as on a new machine
ci:
    .ci/run
