# Recipes for people and scripts. The last line that `bench`, `crash` and `simulate` print on stdout is one JSON summary.
# `just` comes as a wheel: `pip install rust-just`.

set positional-arguments

# Lists the recipes.
default:
    @just --list

# Runs all tests, as CI does.
test:
    cargo test --workspace

# Runs all linters, as CI does.
lint:
    .ci/run lint

# Measures the release binary; NAME picks: accept, whole-way (beside a null server), store (alone), offered, drain, busy-drain, latency (deliveries), lanes, throttled, held, outage (difficult upstreams), deep, footprint.
bench name="all":
    cargo build --release --package embeddables-sidecar --package embeddables-mock --package embeddables-bench
    target/release/embeddables-bench run "$1"

# Counts instructions an event with valgrind and compares them with the last accepted ones; `--accept` writes them anew.
instructions *arguments:
    .ci/instructions "$@"

# Kills a loaded sidecar ROUNDS times with SIGKILL and looks for acknowledged events that were lost.
crash rounds="25":
    #!/usr/bin/env bash
    set -euo pipefail
    summary=$(mktemp)
    trap 'rm -f "$summary"' EXIT
    cargo build --workspace --bins
    status=0
    E2E_CRASH_ROUNDS="$1" E2E_SUMMARY_FILE="$summary" \
        cargo test --package e2e --test it -- --exact --nocapture crash::kill_nine_under_load_loses_nothing_acknowledged || status=$?
    if [[ -s $summary ]]; then
        cat "$summary"
    else
        printf '{"recipe":"crash","rounds":%d,"ok":false}\n' "$1"
    fi
    exit "$status"

# Plays COUNT seeds of the simulation, from SEED on. One seed alone, where it fails, shows all that happened.
simulate count="2000" seed="0":
    #!/usr/bin/env bash
    set -euo pipefail
    cargo build --quiet --package embeddables-sidecar --test simulation
    status=0
    SIMULATION_SEEDS="$1" SIMULATION_FIRST_SEED="$2" \
        cargo test --quiet --package embeddables-sidecar --test simulation -- --nocapture every_seed || status=$?
    ok=$([[ $status -eq 0 ]] && echo true || echo false)
    printf '{"recipe":"simulate","seeds":%d,"first_seed":%d,"ok":%s}\n' "$1" "$2" "$ok"
    exit "$status"
