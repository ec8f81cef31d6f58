//! Real clients work: redis-cli, redis-benchmark, redis-py and the `redis` crate, over Unix sockets and TCP.
//!
//! What a client prints is judged, not only that it ends well: most of them go on after an error reply.

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use redis::Commands;
use support::process::{Server, ServerOptions};
use support::resp;

/// The release of redis-py that is installed.
const REDIS_PY: &str = "redis==8.1.0";

fn duva() -> Server {
    ServerOptions::duva(2).tcp().start()
}

/// Runs a program with `input` to its end.
fn run(command: &mut Command, input: &[u8]) -> Output {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap_or_else(
            |error| panic!("cannot run {program}: {error}; .ci/test-setup installs what the tests need"),
        );
    let mut stdin = child.stdin.take().expect("standard input is piped");
    std::thread::scope(|scope| {
        // A program that ends early closes its input; its exit status says whether that was right.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().expect("a child that was started can be waited for")
    })
}

/// What a successful program printed.
fn output(command: &mut Command, input: &[u8]) -> String {
    let output = run(command, input);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

fn redis_cli(server: &Server, arguments: &[&str]) -> String {
    output(Command::new("redis-cli").arg("-s").arg(server.socket()).args(arguments), b"")
}

#[test]
fn redis_cli_runs_commands() {
    let server = duva();
    assert_eq!(redis_cli(&server, &["PING"]), "PONG\n");
    assert_eq!(redis_cli(&server, &["SET", "key", "a value"]), "OK\n");
    assert_eq!(redis_cli(&server, &["GET", "key"]), "a value\n");
    assert_eq!(redis_cli(&server, &["--no-raw", "GET", "missing"]), "(nil)\n");
    assert_eq!(redis_cli(&server, &["--no-raw", "MGET", "key", "missing"]), "1) \"a value\"\n2) (nil)\n");
    assert_eq!(redis_cli(&server, &["-n", "3", "SET", "key", "three"]), "OK\n");
    assert_eq!(redis_cli(&server, &["-n", "3", "GET", "key"]), "three\n");
    assert_eq!(
        redis_cli(&server, &["-3", "--no-raw", "CONFIG", "GET", "databases"]),
        "1# \"databases\" => \"16\"\n"
    );
    assert!(redis_cli(&server, &["BOGUS"]).starts_with("ERR unknown command 'BOGUS'"));
    let port = server.tcp_address().port().to_string();
    assert_eq!(output(Command::new("redis-cli").args(["-p", &port, "GET", "key"]), b""), "a value\n");
    let script = b"SET a 1\nINCR a\nSELECT 2\nGET a\nSELECT 0\nGET a\n";
    assert_eq!(
        output(Command::new("redis-cli").arg("-s").arg(server.socket()), script),
        "OK\n2\nOK\n\nOK\n2\n"
    );
    let from_input = output(
        Command::new("redis-cli").arg("-s").arg(server.socket()).args(["-x", "SET", "x"]),
        b"from stdin",
    );
    assert_eq!(from_input, "OK\n");
    assert_eq!(redis_cli(&server, &["-r", "5", "INCR", "n"]), "1\n2\n3\n4\n5\n");
}

#[test]
fn redis_cli_loads_through_a_pipe_and_walks_the_keyspace() {
    const KEYS: usize = 100_000;
    let server = duva();
    let mut bytes = Vec::new();
    for number in 0..KEYS {
        resp::encode_request(&["SET", &format!("key:{number}"), &format!("value:{number}")], &mut bytes);
    }
    let printed = output(Command::new("redis-cli").arg("-s").arg(server.socket()).arg("--pipe"), &bytes);
    assert!(printed.contains(&format!("errors: 0, replies: {KEYS}")), "{printed}");
    assert_eq!(redis_cli(&server, &["DBSIZE"]), format!("{KEYS}\n"));
    assert_eq!(redis_cli(&server, &["GET", "key:77777"]), "value:77777\n");
    let mut keys: Vec<String> = redis_cli(&server, &["--scan"]).lines().map(str::to_owned).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), KEYS);
    let matching = redis_cli(&server, &["--scan", "--pattern", "key:1234?"]);
    assert_eq!(matching.lines().count(), 10, "{matching}");
    let sizes = redis_cli(&server, &["--bigkeys"]);
    assert!(sizes.contains(&format!("Sampled {KEYS} keys in the keyspace")), "{sizes}");
    assert!(sizes.contains("has 11 bytes"), "{sizes}");
}

#[test]
fn redis_cli_authenticates() {
    let server = ServerOptions::duva(2).option("requirepass", &["secret"]).start();
    assert!(redis_cli(&server, &["GET", "key"]).starts_with("NOAUTH"));
    assert_eq!(redis_cli(&server, &["--no-auth-warning", "-a", "secret", "SET", "key", "v"]), "OK\n");
    assert_eq!(
        redis_cli(&server, &["--no-auth-warning", "--user", "default", "--pass", "secret", "GET", "key"]),
        "v\n"
    );
}

#[test]
fn redis_benchmark_runs_without_an_error() {
    const TESTS: [&str; 6] = ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET (10 keys)"];
    let server = duva();
    let port = server.tcp_address().port().to_string();
    let socket = server.socket().to_str().expect("a temporary path is text").to_owned();
    for connection in [vec!["-s", &socket], vec!["-p", &port]] {
        for depth in ["1", "16"] {
            let mut command = Command::new("redis-benchmark");
            command
                .args(&connection)
                .args(["-t", "ping_inline,ping_mbulk,set,get,incr,mset", "--csv"])
                .args(["-n", "10000", "-c", "20", "-r", "1000", "-P", depth]);
            let output = run(&mut command, b"");
            let printed = String::from_utf8_lossy(&output.stdout);
            let complaints = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{command:?}: {}\n{printed}{complaints}", output.status);
            assert!(
                complaints.is_empty() && !printed.to_lowercase().contains("error"),
                "{command:?}:\n{printed}{complaints}"
            );
            for test in TESTS {
                assert!(
                    printed.contains(&format!("\"{test}\"")),
                    "{test} is missing after {command:?}:\n{printed}"
                );
            }
        }
    }
    let mut client = server.connect();
    // Keys of SET and GET, of INCR, and of MSET, a thousand of each at most.
    let keys = client.words("DBSIZE").integer().expect("DBSIZE is a number");
    assert!((1000..=3001).contains(&keys), "{keys} keys");
    assert!(client.words("PING").is_status("PONG"));
}

#[test]
fn redis_py_works() {
    let server = duva();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/redis_py.py");
    let mut command = Command::new(python_with_redis());
    command.arg(script).arg(server.socket()).arg(server.tcp_address().port().to_string());
    let output = run(&mut command, b"");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

/// The Python of a virtual environment that holds redis-py, made once per build directory.
fn python_with_redis() -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(root).expect("cargo's temporary directory");
    // Another run on the same build directory may be making the environment right now.
    let lock = File::create(root.join("redis-py.lock")).expect("cargo's temporary directory is writable");
    lock.lock().expect("a lock on a local file");
    let environment = root.join(REDIS_PY.replace("==", "-"));
    let (python, complete) = (environment.join("bin/python"), environment.join("complete"));
    if !complete.exists() {
        output(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment), b"");
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", REDIS_PY];
        output(Command::new(&python).args(pip), b"");
        fs::write(&complete, REDIS_PY).expect("our own directory");
    }
    python
}

/// The `redis` crate's connections: Unix and TCP, both protocol versions.
fn crate_connections(server: &Server) -> Vec<redis::Connection> {
    let unix = format!("redis+unix://{}", server.socket().display());
    let tcp = format!("redis://{}", server.tcp_address());
    [unix.clone(), format!("{unix}?protocol=resp3"), tcp.clone(), format!("{tcp}/?protocol=resp3")]
        .into_iter()
        .map(|url| {
            let client = redis::Client::open(&*url).expect("a well-formed URL");
            client.get_connection().unwrap_or_else(|error| panic!("{url}: {error}\n{}", server.log()))
        })
        .collect()
}

#[test]
fn the_redis_crate_reads_and_writes() -> redis::RedisResult<()> {
    let server = duva();
    for mut client in crate_connections(&server) {
        let _: () = redis::cmd("FLUSHALL").query(&mut client)?;
        let _: () = client.set("key", "value")?;
        assert_eq!(client.get::<_, String>("key")?, "value");
        assert_eq!(client.get::<_, Option<String>>("missing")?, None);
        let bytes: Vec<u8> = (0..=255).collect();
        let _: () = client.set(&bytes, &bytes)?;
        assert_eq!(client.get::<_, Vec<u8>>(&bytes)?, bytes);
        assert_eq!(client.incr::<_, _, i64>("counter", 41)?, 41);
        assert_eq!(client.incr::<_, _, i64>("counter", 1)?, 42);
        assert_eq!(client.incr::<_, _, f64>("float", 0.5)?, 0.5);
        let _: () = client.mset(&[("a", 1), ("b", 2), ("c", 3)])?;
        assert_eq!(client.mget::<_, (i64, i64, Option<i64>)>(&["a", "b", "missing"])?, (1, 2, None));
        assert!(!client.mset_nx::<_, _, bool>(&[("c", 9), ("d", 9)])?);
        assert_eq!(client.del::<_, i64>(&["a", "b", "missing"])?, 2);
        assert!(client.expire::<_, bool>("c", 1000)?);
        assert!((900..=1000).contains(&client.ttl::<_, i64>("c")?));
        assert!(client.persist::<_, bool>("c")?);
        assert_eq!(client.ttl::<_, i64>("c")?, -1);
        let _: () = client.rename("c", "renamed")?;
        assert_eq!(client.get_del::<_, i64>("renamed")?, 3);
        assert!(!client.exists::<_, bool>("renamed")?);
        let _: () = client.set_ex("timed", "v", 1000)?;
        assert_eq!(client.strlen::<_, usize>("timed")?, 1);
        assert_eq!(client.append::<_, _, usize>("timed", "w")?, 2);
        assert_eq!(client.getrange::<_, String>("timed", 0, 0)?, "v");
        let large = vec![b'x'; 3 << 20];
        let _: () = client.set("large", &large)?;
        assert_eq!(client.get::<_, Vec<u8>>("large")?, large);
        let error = redis::cmd("BOGUS").query::<()>(&mut client).expect_err("an unknown command");
        assert_eq!(error.kind(), redis::ErrorKind::Server(redis::ServerErrorKind::ResponseError), "{error}");
        assert_eq!(client.get::<_, String>("key")?, "value");
    }
    Ok(())
}

#[test]
fn the_redis_crate_pipelines_and_scans() -> redis::RedisResult<()> {
    let server = duva();
    for mut client in crate_connections(&server) {
        let _: () = redis::cmd("FLUSHALL").query(&mut client)?;
        let mut pipeline = redis::pipe();
        for number in 0..5000 {
            pipeline.set(format!("key:{number}"), number).ignore();
        }
        pipeline.get("key:4999").incr("key:0", 7).mget(&["key:1", "key:2"]);
        let (last, first, some): (i64, i64, Vec<i64>) = pipeline.query(&mut client)?;
        assert_eq!((last, first, some), (4999, 7, vec![1, 2]));
        let mut keys: Vec<String> = client.scan_match::<_, String>("key:*")?.collect::<Result<_, _>>()?;
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 5000);
        let options = redis::ScanOptions::default().with_pattern("key:12??").with_count(500);
        let some: Vec<String> = client.scan_options::<String>(options)?.collect::<Result<_, _>>()?;
        assert_eq!(some.len(), 100);
        let matching: Vec<String> = client.keys("key:499?")?;
        assert_eq!(matching.len(), 10);
    }
    Ok(())
}
