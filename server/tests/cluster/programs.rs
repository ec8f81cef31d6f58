//! The programs that people use with clusters.

use std::process::{Command, Output};

use crate::Cluster;

fn run(program: &str, port: u16, words: &str) -> Output {
    let mut command = Command::new(program);
    command.args(["-h", "127.0.0.1", "-p", &port.to_string()]).args(words.split(' '));
    let output = command.output();
    output.unwrap_or_else(|error| panic!("{program}: {error}; .ci/test-setup installs what the tests need"))
}

fn said(output: &Output) -> String {
    let both = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}

#[test]
fn redis_cli_follows_the_cluster() {
    let cluster = Cluster::start();
    for (number, node) in cluster.nodes.iter().enumerate() {
        for key in 0..20 {
            let output = run("redis-cli", node.address().port(), &format!("-c SET cli:{key} {number}"));
            assert!(output.status.success() && said(&output).contains("OK"), "{}", said(&output));
            let output = run("redis-cli", node.address().port(), &format!("-c GET cli:{key}"));
            assert_eq!(String::from_utf8_lossy(&output.stdout).lines().last(), Some(&*number.to_string()));
        }
    }
    let port = cluster.nodes[0].address().port();
    let nodes = said(&run("redis-cli", port, "CLUSTER NODES"));
    assert_eq!(nodes.lines().filter(|line| !line.is_empty()).count(), 3, "{nodes}");
    for node in &cluster.nodes {
        assert!(nodes.contains(&node.address().to_string()), "{nodes}");
    }
    assert_eq!(nodes.matches("myself").count(), 1, "{nodes}");
}

#[test]
fn redis_benchmark_sees_no_error() {
    let cluster = Cluster::start();
    let port = cluster.nodes[1].address().port();
    for words in [
        "-t set,get,incr -c 20 -n 5000 -r 1000 -q",
        "-t set,get -c 10 -P 16 -n 10000 -r 1000 -q",
        "-t set,get -c 10 -n 5000 -r 1000 -q --cluster",
    ] {
        let output = run("redis-benchmark", port, words);
        let text = said(&output);
        assert!(output.status.success(), "{words}: {text}");
        assert!(!text.to_lowercase().contains("error"), "{words}: {text}");
        assert!(text.contains("requests per second"), "{words}: {text}");
    }
}
