# What people do by hand. `just` without a name lists them.

default:
    @just --list

# Build and run the server.
run *arguments:
    cargo run --release -- {{arguments}}

# Everything that the continuous integration runs.
ci:
    .ci/run

# All tests.
test:
    .ci/test

# The mesh's concurrency models.
loom:
    RUSTFLAGS="--cfg loom" cargo test -p duva-net --test mesh_loom --release

# Raft's own simulator over many seeds.
raft-sim seeds="10000" first="0":
    cargo run --release -p duva-raft --example simulate -- --seeds {{seeds}} --first {{first}}

# The simulator over many seeds.
sim seeds="1000" first="0":
    cargo run --release -p duva-tools --bin duva-sim -- --seeds {{seeds}} --first {{first}}

# The same of clusters of three or five nodes, whose network, disks, clocks and processes fail.
sim-cluster seeds="1000" first="0":
    cargo run --release -p duva-tools --bin duva-sim -- --cluster --seeds {{seeds}} --first {{first}}

# Fuzz the request parser; needs cargo-fuzz and a nightly toolchain, as do all fuzz recipes.
fuzz seconds="60": (fuzz-target "net" "resp" seconds)

# Fuzz the reader of RDB streams.
fuzz-rdb seconds="60": (fuzz-target "engine" "rdb" seconds "40000")

# Fuzz the reader of RESTORE's payloads.
fuzz-restore seconds="60": (fuzz-target "engine" "restore" seconds "40000")

# Fuzz one of a crate's targets, by the name of its file in the crate's fuzz/fuzz_targets, with inputs of so many bytes at most.
fuzz-target crate target seconds="60" bytes="512":
    mkdir -p target/fuzz-corpus/{{crate}}-{{target}}
    cd {{crate}} && cargo +nightly fuzz run {{target}} ../target/fuzz-corpus/{{crate}}-{{target}} fuzz/corpus/{{target}} -- -max_len={{bytes}} -max_total_time={{seconds}}

# Micro-benchmarks.
bench *arguments:
    cargo bench -p duva-benches {{arguments}}

# Side by side with other servers; see benches/README.md.
compare *arguments:
    cargo build --release -p duva-server -p duva-tools -p duva-benches --bins
    target/release/side-by-side {{arguments}}

# A flamegraph of the server under load, as flamegraph.svg; needs perf and inferno (cargo install inferno).
flamegraph seconds="10" *load="-t set,get -P 16 -c 50 -n 20000000 -r 1000000":
    tools/flamegraph {{seconds}} {{load}}
